"""The few images that are shown are those of the whole batch."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from configs import digits
from deit_jax.augment.normalise import to_levels
from deit_jax.data.source import ArraySource
from deit_jax.schema import Config
from deit_jax.sheets import seen_sheet
from deit_jax.training.example import make_prepare
from deit_jax.training.loop import train
from deit_jax.training.seen import rows_that_mix, see, see_first_batch
from tests.runs.test_log import events

BATCH = 16


def configuration(**mix):
    config = digits.get_config("none")
    config.training.batch_size = BATCH
    config.mix.update(mix)
    return config


@pytest.mark.parametrize(
    ("group", "mode", "count"),
    [
        pytest.param(0, "pair", 6, marks=pytest.mark.slow),
        pytest.param(8, "elem", 6, marks=pytest.mark.slow),
        (4, "batch", 9),
    ],
)
def test_images_and_soft_labels_are_those_of_the_whole_batch(group, mode, count):
    config = Config.of(configuration(group=group, mode=mode))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    source = ArraySource("made up", pixels, rng.integers(0, 10, 20), [f"c{n}" for n in range(10)])
    index = rng.permutation(20)[:BATCH].astype(np.int32)
    batch = {"image": source.images[index], "label": source.labels[index], "index": index}
    batch |= {"epoch": np.full(BATCH, 3, np.int32), "copy": np.zeros(BATCH, np.int32)}
    seen = see(batch, source, config, count)
    whole = jax.jit(make_prepare(config))(batch)
    rows, _ = rows_that_mix(BATCH, group, count)
    assert count - 1 <= len(rows) == len(set(rows)) <= count
    # Compiled for other sizes, products may round otherwise.
    np.testing.assert_allclose(seen.targets, np.asarray(whole.targets)[rows], atol=1e-6)
    mean, std = config.augment.mean, config.augment.std
    levels = to_levels(np.asarray(whole.images), mean, std)[rows]
    assert np.abs(seen.images.astype(int) - levels).max() <= 1
    assert seen.names == tuple(f"made up[{n}]" for n in index[rows])
    assert seen.labels == tuple(source.labels[index[rows]])


def test_small_groups_and_large_wishes():
    assert rows_that_mix(8, 1, 3) == ([0, 1, 2], 1)
    assert rows_that_mix(8, 4, 100) == (list(range(8)), 4)
    assert rows_that_mix(8, 0, 1) == ([0, 7], 0)
    # Where nothing is mixed, a group may be larger than the batch.
    assert rows_that_mix(8, 64, 12) == (list(range(8)), 8)
    assert rows_that_mix(8, 64, 4) == ([0, 1, 6, 7], 0)


def test_the_first_batch_of_a_run_is_read_again():
    config = {**configuration().to_dict(), "of_the_past": {"key": 1}}
    seen = see_first_batch(config, 4)
    assert len(seen.names) == 4 and seen.images.shape == (4, 16, 16, 3)
    assert seen.class_names == tuple("0123456789")
    np.testing.assert_allclose(seen.targets.sum(-1), 1, rtol=1e-6)
    # The parts that are named are the largest, above what smoothing gives to all.
    for row in seen.targets:
        parts = seen.parts(row)
        assert parts[0] == (str(row.argmax()), row.max())
        assert 1 <= len(parts) <= 2


@pytest.mark.full
@pytest.mark.usefixtures("quick_compilation")
def test_a_run_shows_its_first_batch_in_tensorboard_once(tmp_path):
    config = configuration()
    config.schedule.update(epochs=2 * BATCH / 50, warmup_epochs=0.0)
    config.log.update(images=4, every_steps=1)
    train(config, str(tmp_path))
    config.log.images = 3
    train(config, str(tmp_path))
    paths = tmp_path.glob("events.out.tfevents.*")
    found = [value for path in paths for event in events(path) for value in event.summary.value]
    (shown,) = [value.image for value in found if value.tag == "train/images"]
    # Split over the devices of the tests, the batch is the same.
    expected = seen_sheet(see_first_batch(config.to_dict(), 4))
    sheet = Image.open(io.BytesIO(shown.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(sheet), np.asarray(expected))
    assert any(value.tag == "_hparams_/session_start_info" for value in found)
