"""`benchmark input`: all figures there, of the right data, and mistakes answered by a sentence."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks.flops import vit_forward_flops
from deit_jax.cli.main import main
from deit_jax.devices import PEAK_TFLOPS
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.training.input_speed import _batches_within
from tests.inputs import train_input

QUICK = ["--images", "24", "--seconds", "0.1"]
MICRO = ["benchmark", "input", "--config", "configs/digits.py:none", *QUICK]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine images in three classes; one is damaged."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(9):
        path = root / "train" / f"class{number % 3}" / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    path.write_bytes(b"no image")
    return root


def folder_flags(folder, **more):
    keys = {
        "data.source": "folder",
        "data.directory": folder,
        "data.crop": "random_resized",
        "data.train_images": 0,
        "data.max_damaged": 1,
        "data.repeats": 3,
        "model.num_classes": 3,
        "training.batch_size": 16,
    }
    return [f"--config.{key}={value}" for key, value in (keys | more).items()]


def figures(arguments, capsys):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_images_in_a_folder(folder, capsys):
    facts = figures([*MICRO, *folder_flags(folder)], capsys)
    assert facts["data"] == f"{folder.name}/train, 9 images"
    assert facts["stages"].keys() == {"read", "decode", "crop", "transfer"}
    assert min(facts["stages"].values()) >= 0
    host = sum(facts["stages"][name] for name in ("read", "decode", "crop"))
    assert facts["core_ms"] == pytest.approx(host)
    # 24 positions are two epochs and six positions of the third: 3, 3 and 2 of 9 records.
    assert facts["damaged"] <= 3
    sizes = [file.stat().st_size for file in folder.rglob("*.jpeg")]
    assert min(size for size in sizes if size > 100) <= facts["bytes_per_record"] <= max(sizes)
    assert facts["input_rate"] > 0 and facts["first_batch_seconds"] > 0


def test_the_embedded_digits(capsys):
    facts = figures(MICRO, capsys)
    assert facts["stages"].keys() == {"gather", "transfer"}
    assert facts["data"] == "digits/train (50 of 597 images), 50 images"


@pytest.mark.slow
def test_needs_follow_from_the_operations(folder, capsys):
    command = ["benchmark", "input", "--config", "configs/deit.py:tiny", *QUICK]
    facts = figures([*command, *folder_flags(folder, **{"mix.group": 0})], capsys)
    builder = model_builder("deit_tiny_patch16_224", num_classes=3)
    counted = vit_forward_flops(abstract(builder)[1], (224, 224))
    for name, rate in facts["accelerators"].items():
        expected = 0.24 * PEAK_TFLOPS[name]["bfloat16"] * 1e12 / (3 * counted)
        # XLA counts elementwise operations too, and not the last block's unread tokens.
        assert rate == pytest.approx(expected, rel=0.1)
    assert facts["model_rate"] == 0  # No data sheet for a processor.


def test_submodels_need_twice_as_much_and_heads_alone_a_third(capsys):
    rates = {}
    for flag in ("model.drop_path_rate=0.2", "training.cosub=True", "training.parts=heads"):
        facts = figures([*MICRO, "--config.model.drop_path_rate=0.1", f"--config.{flag}"], capsys)
        rates[flag] = facts["accelerators"]["NVIDIA H200"]
    usual, submodels, heads = rates.values()
    assert (submodels, heads) == (pytest.approx(usual / 2), pytest.approx(3 * usual))


def test_the_page_says_what_is_the_limit(folder, capsys):
    assert main([*MICRO, *folder_flags(folder)]) == 0
    page = capsys.readouterr().out
    for words in ("| decode ", "serve 3 images each", "--measure runs it", "| NVIDIA H200 "):
        assert words in page


@pytest.mark.parametrize(
    ("seconds", "image_seconds", "batch"),
    [(4.0, 0.05, 10), (4.0, 1e-6, 64), (0.1, 1.0, 6), (4.0, 0.0, 64)],
)
def test_large_photographs_are_timed_in_small_batches(seconds, image_seconds, batch):
    # Eight batches fit; never fewer images than three copies for each of two threads.
    options = train_input(image_size=(16, 16), batch_size=64, repeats=3, threads=2)
    shared = batch + -batch % jax.device_count()
    assert _batches_within(options, seconds, image_seconds).batch_size == shared


@pytest.mark.full
def test_the_model_is_run(capsys):
    facts = figures([*MICRO, "--measure"], capsys)
    assert facts["model_rate"] > 0 and "measured" in facts["model_source"]


def test_without_a_name_it_explains_what_there_is(capsys):
    assert main(["benchmark"]) == 0
    assert 'one benchmark, "input"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["benchmark", "input"], "Give --config FILE:WHAT"),
        (["benchmark", "input", "--config", "configs/digit.py:none"], "There is no config file"),
        (["benchmark", "input", "--config", "configs/digits.py:nome"], "Did you mean 'none'?"),
        ([*MICRO, "--config.data.source=folder", "--config.data.directory=nowhere"], "nowhere"),
        ([*MICRO, "--config.data.workers=-1"], "config.data.workers is -1"),
        ([*MICRO, "--config.data.workers=many"], "many"),
    ],
)
def test_mistakes_are_answered_by_a_sentence(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert words in error


def test_all_records_damaged(folder, tmp_path, capsys):
    path = tmp_path / "train" / "a" / "0.jpeg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no image")
    flags = folder_flags(tmp_path, **{"model.num_classes": 1})
    assert main([*MICRO, *flags]) == 2
    assert "None of" in capsys.readouterr().err


def test_batches_of_a_slow_source_are_smaller_than_its_mixing_groups():
    options = train_input(image_size=(16, 16), batch_size=64, mix_group=64, repeats=3)
    smaller = _batches_within(options, seconds=1.0, image_seconds=0.02)
    assert 6 <= smaller.batch_size < 64 and smaller.mix_group == 0
    assert _batches_within(options, seconds=1000.0, image_seconds=0.02) == options
