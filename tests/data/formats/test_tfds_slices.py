"""Parts of splits, as TensorFlow Datasets itself understands their names."""

import itertools

import pytest

from deit_jax.data.formats.tfds_slices import parse_split

tfds = pytest.importorskip("tensorflow_datasets")

BOUNDS = ("", "0", "1", "7", "37", "38", "-1", "-37", "-38", "1_0", "1.5", "x", "-")
PERCENTS = ("0%", "1%", "12.5%", "33%", "66.6%", "100%", "101%", "-1%", "-33%", "-100%", "5.%")
FILES = ("0shard", "1shard", "3shard", "4shard", "9shard", "-1shard", "-4shard", "-5shard")
# Files of one split; all 37 records, or one file, or less than the bounds ask for.
LENGTHS = ([10, 0, 20, 7], [37], [1, 1, 1])


def theirs(spec, lengths):
    info = tfds.core.SplitInfo("train", lengths, 1)
    (part,) = tfds.core.ReadInstruction.from_spec(spec).to_absolute({"train": info})
    return range(part.from_ or 0, sum(lengths) if part.to is None else part.to)


@pytest.mark.parametrize("lengths", LENGTHS)
def test_slices_are_those_of_tensorflow_datasets(lengths):
    every = BOUNDS + PERCENTS + FILES
    selectors = [f"{a}:{b}" for a, b in itertools.product(every, every)]
    selectors += [*every, "::", ":1:", "1:2:3"]
    refused = 0
    for selector in selectors:
        spec = f"train[{selector}]"
        try:
            expected = theirs(spec, lengths)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError):
                (part,) = parse_split(spec)
                part.records(lengths)
            continue
        (part,) = parse_split(spec)
        assert list(part.records(lengths)) == list(expected), spec
    assert 100 < refused < len(selectors) - 100


@pytest.mark.parametrize("spec", ["train", "train + a-b[1:]", "train+train[:1%]", "all"])
def test_parts_are_put_together(spec):
    parts = spec.replace(" ", "").split("+")
    assert parse_split(spec) == [part for text in parts for part in parse_split(text)]
    assert [part.split for part in parse_split(spec)] == [text.split("[")[0] for text in parts]


@pytest.mark.parametrize("spec", ["", "train[", "train]", "[1:]", " train", "a+", "all[:1]", "a b"])
def test_what_is_no_split_is_refused_in_one_sentence(spec):
    with pytest.raises(ValueError, match=r"is no split: write train, .* in between\.$"):
        parse_split(spec)
