"""Damaged records: skipped, counted, named, and replaced alike by every way of reading."""

import logging
import shutil

import numpy as np
import pytest

from deit_jax.data.draws import crop_draws, substitutes
from deit_jax.data.images.crop import CROP_DRAWS, random_resized_crop
from deit_jax.data.open import open_source
from deit_jax.data.stream.damage_count import allowed_damage
from deit_jax.data.stream.loader import eval_batches, train_batches
from deit_jax.data.stream.read_or_replace import DamagedRecordError, read_image
from tests.data.stream.small_jpegs import SIZE, collect, jpeg, write
from tests.inputs import eval_input, train_input


def spoil(path, kind):
    """Damages a file in one of ten ways; Pillow opens none of the results."""
    data = path.read_bytes()
    noise = np.random.default_rng(kind).integers(0, 256, len(data), np.uint8).tobytes()
    png = jpeg(0, kind="PNG")
    # A header that promises more pixels than any photograph has.
    bomb = png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]
    contents = [
        b"",
        data[:2],
        data[: len(data) // 2],
        noise,
        bytes(len(data)),
        b"<html>404 Not Found</html>",
        png[: len(png) // 2],
        b"GIF89a" + noise,
        bomb,
    ]
    path.unlink()
    if kind < len(contents):
        path.write_bytes(contents[kind])
    else:
        path.symlink_to(path.parent / "gone")


def spoiled_copy(sound, directory, every, kinds=10):
    """Copies a folder, opens it and damages each `every`th image; returns source and indices."""
    shutil.copytree(sound, directory)
    source = open_source("folder", "train", str(directory))
    damaged = list(range(3, len(source), every))
    for turn, index in enumerate(damaged):
        spoil(directory / "train" / source.path(index), turn % kinds)
    return source, damaged


def rows(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


@pytest.mark.slow
@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.full)])
def test_one_of_ten_files_is_damaged(tmp_path, caplog, count):
    sound = open_source("folder", "train", str(write(tmp_path / "sound", count)))
    source, damaged = spoiled_copy(tmp_path / "sound", tmp_path / "damaged", every=10)
    assert (len(source), len(damaged)) == (count, count / 10)
    options = train_input(image_size=SIZE, batch_size=count // 20, max_damaged=0.1, threads=1)
    with caplog.at_level(logging.WARNING, "deit_jax"):
        batches, found = collect(train_batches(source, options, num_steps=20))
    assert [damage.number for damage in found] == damaged
    named = [record.args[2] for record in caplog.records]
    root = tmp_path / "damaged" / "train"
    assert sorted(named) == sorted(str(root / source.path(index)) for index in damaged)
    expected, none = collect(train_batches(sound, options, num_steps=20))
    assert none == ()
    ours, theirs = rows(batches), rows(expected)
    for name in ("epoch", "index", "copy"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    kept = ~np.isin(ours["index"], damaged)
    assert kept.sum() == 0.9 * count
    for name in ("image", "label"):
        np.testing.assert_array_equal(ours[name][kept], theirs[name][kept])
    # Where an image was damaged stands another, cropped as the damaged one would have been.
    bad = set(damaged)
    for row in np.flatnonzero(~kept)[:50]:
        index = int(ours["index"][row])
        other = next(i for i in substitutes(0, index, count, 32) if i not in bad)
        pixels, label = read_image(sound, other)
        crop = random_resized_crop(pixels, SIZE, crop_draws(0, 0, index, 0, CROP_DRAWS))
        np.testing.assert_array_equal(ours["image"][row], crop)
        assert ours["label"][row] == label


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory):
    root = tmp_path_factory.mktemp("spoiled")
    return spoiled_copy(write(root / "sound", 40), root / "damaged", every=5)


def stream(source, workers, processes, start, steps=12):
    options = train_input(
        image_size=SIZE, batch_size=6, repeats=3, seed=4, workers=workers, max_damaged=0.5
    )
    parts = [
        collect(
            train_batches(
                source,
                options,
                start_step=start,
                num_steps=steps,
                process_index=i,
                process_count=processes,
            )
        )[0]
        for i in range(processes)
    ]
    return [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def check_grid(source, grid):
    whole = stream(source, workers=0, processes=1, start=0)
    for workers, processes, start in grid:
        assert_same(stream(source, workers, processes, start), whole[start:])


@pytest.mark.slow
def test_replacements_are_the_same_for_any_readers_and_after_resuming(spoiled):
    source, _ = spoiled
    check_grid(source, [(0, p, start) for p in (1, 2) for start in (0, 6)])
    check_grid(source, [(2, 1, 7)])


# 48 reader processes are started, one group after the other: slow where cores are busy.
@pytest.mark.full
@pytest.mark.timeout(1200)
def test_replacements_are_the_same_for_any_readers_and_after_resuming_everywhere(spoiled):
    source, _ = spoiled
    check_grid(source, [(0, p, start) for p in (1, 2) for start in range(12)])
    check_grid(source, [(w, p, start) for w in (1, 3) for p in (1, 2) for start in (0, 1, 6, 11)])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_damaged_records_end_the_run_with_the_list(spoiled, workers, caplog):
    source, damaged = spoiled
    options = train_input(
        image_size=SIZE, batch_size=20, threads=1, workers=workers, max_damaged=len(damaged) - 1
    )
    with pytest.raises(ValueError, match="8 damaged records among 40 and 7 are allowed") as error:
        collect(train_batches(source, options, num_steps=2))
    assert str(error.value).count(".jpeg: ") == 8
    remedies = [record.args[4] for record in caplog.records]
    assert remedies == ["another image takes its place"] * 7 + ["that is one too many"]


def test_a_resumed_stream_counts_what_was_found_before(spoiled, caplog):
    source, damaged = spoiled
    options = train_input(image_size=SIZE, batch_size=8, threads=1, max_damaged=len(damaged))
    whole, found = collect(train_batches(source, options, num_steps=10))
    assert [damage.number for damage in found] == damaged
    with train_batches(source, options, num_steps=10) as first:
        head = [next(first) for _ in range(3)]
        known = first.damaged_numbers
    assert 0 < len(known) < len(damaged)
    caplog.clear()
    with (
        train_batches(source, options, start_step=3, num_steps=10, known_damaged=known) as second,
        caplog.at_level(logging.WARNING, "deit_jax"),
    ):
        tail = list(second)
    assert_same([*head, *tail], whole)
    assert second.damaged_numbers == tuple(damaged)
    assert {damage.number for damage in second.damaged} == set(damaged) - set(known)
    counts = [record.args[0] for record in caplog.records]
    assert counts == list(range(len(known) + 1, len(damaged) + 1))
    # One fewer allowed: the last to be found ends the run, although it has seen few itself.
    strict = train_input(image_size=SIZE, batch_size=8, threads=1, max_damaged=len(damaged) - 1)
    with pytest.raises(ValueError, match=rf"{len(damaged)} damaged .* and {len(known)} more"):
        collect(train_batches(source, strict, start_step=3, num_steps=10, known_damaged=known))


def test_limits_are_shares_or_counts():
    assert allowed_damage(0.001, 1_281_167) == 1281
    assert [allowed_damage(limit, 500) for limit in (0, 0.001, 0.5, 1, 7)] == [0, 0, 250, 1, 7]


def test_evaluation_leaves_damaged_images_out(spoiled):
    source, damaged = spoiled
    options = eval_input(image_size=SIZE, batch_size=16, threads=1, max_damaged=0.5)
    batches, found = collect(eval_batches(source, options))
    assert [damage.number for damage in found] == damaged
    mask = rows(batches)["mask"]
    assert np.flatnonzero(~mask).tolist() == [*damaged, *range(40, 48)]
    assert not rows(batches)["image"][~mask].any()
    with pytest.raises(ValueError, match="damaged records"):
        collect(eval_batches(source, eval_input(image_size=SIZE, batch_size=16)))


def test_a_data_set_without_a_sound_record_says_so(tmp_path):
    source, damaged = spoiled_copy(write(tmp_path / "sound", 5), tmp_path / "damaged", every=1)
    for index in range(3):
        spoil(tmp_path / "damaged" / "train" / source.path(index), 3)
    assert damaged == [3, 4]
    options = train_input(image_size=SIZE, batch_size=2, max_damaged=100)
    with pytest.raises(ValueError, match=r"damaged all over: none of .* can be read \(.+\)"):
        collect(train_batches(source, options, num_steps=2))
    with pytest.raises(DamagedRecordError, match=r"Cannot read record .*jpeg: "):
        read_image(source, 0)
