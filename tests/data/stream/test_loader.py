"""Streams of batches: what they hold, that nothing else changes them, and how they fail."""

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from deit_jax.data.draws import crop_draws
from deit_jax.data.images.crop import CROP_DRAWS, random_box, resize
from deit_jax.data.open import open_source
from deit_jax.data.source import ArraySource
from deit_jax.data.stream.loader import eval_batches, eval_steps, train_batches
from deit_jax.data.stream.read_or_replace import read_image
from deit_jax.data.stream.repeated_augmentation import locate
from deit_jax.preprocessing import EvalView
from tests.inputs import eval_input, train_input

SIZE = (16, 16)


@pytest.fixture(scope="module")
def folder(image_folder):
    return open_source("folder", "train", str(image_folder))


def numbers(count):
    """A source whose images show their own index, and whose labels are the index modulo 3."""
    images = np.broadcast_to(
        np.arange(count, dtype=np.uint8)[:, None, None, None], (count, *SIZE, 3)
    )
    return ArraySource("numbers", images, np.arange(count) % 3, ["a", "b", "c"])


def collect(batches):
    with batches:
        return list(batches)


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("count", [1, 7, 100])
@pytest.mark.parametrize("repeats", [1, 3])
def test_train_batches_are_the_positions_of_their_step(count, repeats):
    source = numbers(count)
    options = train_input(
        image_size=SIZE, batch_size=16, repeats=repeats, seed=5, crop="none", threads=1
    )
    for step, batch in enumerate(collect(train_batches(source, options, num_steps=20))):
        epoch, index, copy = locate(np.arange(step * 16, (step + 1) * 16), count, repeats, 5)
        np.testing.assert_array_equal(batch["epoch"], epoch)
        np.testing.assert_array_equal(batch["index"], index)
        np.testing.assert_array_equal(batch["copy"], copy)
        np.testing.assert_array_equal(batch["label"], index % 3)
        np.testing.assert_array_equal(batch["image"], source.images[index])
        assert {a.dtype.name for n, a in batch.items() if n != "image"} == {"int32"}
        assert batch["image"].dtype == np.uint8


def test_each_copy_is_torchvisions_crop_of_its_own_draws(folder):
    options = train_input(image_size=(24, 32), batch_size=8, repeats=3, seed=2)
    for batch in collect(train_batches(folder, options, num_steps=6)):
        for row in range(8):
            epoch, index, copy = (int(batch[k][row]) for k in ("epoch", "index", "copy"))
            pixels, label = read_image(folder, index)
            box = random_box(*pixels.shape[:2], crop_draws(2, epoch, index, copy, CROP_DRAWS))
            crop = reference.resized_crop(
                Image.fromarray(pixels), *box, [24, 32], InterpolationMode.BICUBIC
            )
            np.testing.assert_array_equal(batch["image"][row], np.asarray(crop))
            assert batch["label"][row] == label


def test_without_cropping_the_whole_image_is_resized(folder):
    options = train_input(image_size=SIZE, batch_size=4, crop="none")
    (batch,) = collect(train_batches(folder, options, num_steps=1))
    for row in range(4):
        pixels, _ = read_image(folder, int(batch["index"][row]))
        np.testing.assert_array_equal(batch["image"][row], resize(pixels, SIZE))


@pytest.mark.parametrize(
    # With processes, and damaged records, in test_damage.py.
    ("workers", "threads"),
    [(0, 4), *[pytest.param(*both, marks=pytest.mark.full) for both in ((2, 2), (3, 1))]],
)
def test_readers_do_not_change_the_stream(folder, workers, threads):
    sampling = dict(image_size=SIZE, batch_size=4, repeats=2, mix_group=2)
    plain = train_input(**sampling, threads=1)
    options = train_input(**sampling, workers=workers, threads=threads)
    everything = collect(train_batches(folder, plain, num_steps=11))
    assert len(everything) == 11
    # Processes take seconds to start: with them, only the harder case.
    for start in (7,) if workers else (0, 7):
        batches = train_batches(folder, options, start_step=start, num_steps=11)
        assert_same(collect(batches), everything[start:])


@pytest.mark.parametrize("processes", [2, 4, 8])
def test_processes_share_each_batch_in_runs_of_rows(folder, processes):
    options = train_input(image_size=SIZE, batch_size=8, repeats=3, mix_group=2)
    parts = [
        collect(
            train_batches(
                folder,
                options,
                start_step=2,
                num_steps=6,
                process_index=i,
                process_count=processes,
            )
        )
        for i in range(processes)
    ]
    joined = [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]}
        for step in zip(*parts, strict=True)
    ]
    assert_same(joined, collect(train_batches(folder, options, start_step=2, num_steps=6)))


@pytest.mark.parametrize("group", [0, 3])
def test_an_image_is_decoded_once_for_all_its_copies_in_a_batch(counted, group):
    source = counted(9)
    options = train_input(image_size=SIZE, batch_size=9, repeats=3, mix_group=group, threads=1)
    batches = collect(train_batches(source, options, num_steps=5))
    assert source.reads == 5 * 3
    # Side by side, or one in each group.
    expected = [0, 1, 2] * 3 if group == 0 else [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert all(batch["copy"].tolist() == expected for batch in batches)


def test_copies_that_a_batch_boundary_parts_are_decoded_in_both(counted):
    source = counted(9)
    options = train_input(image_size=SIZE, batch_size=8, repeats=3, threads=1)
    batches = collect(train_batches(source, options, num_steps=9))
    assert source.reads == sum(len(set(batch["index"].tolist())) for batch in batches)
    # 72 positions: eight epochs of three images, one of which a boundary parts in most batches.
    positions = np.concatenate([np.stack([b["index"], b["copy"]], 1) for b in batches])
    assert positions[:, 1].tolist() == [0, 1, 2] * 24
    assert (positions.reshape(24, 3, 2)[:, :, 0] == positions[::3, :1]).all()


@pytest.mark.parametrize("count", [1, 5, 8, 11])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("crop_ratio", [1.0, 0.875])
def test_evaluation_sees_each_image_once(count, processes, crop_ratio):
    source = numbers(count)
    options = eval_input(
        image_size=SIZE, batch_size=4, view=EvalView.keeping(crop_ratio), threads=1
    )
    parts = [
        collect(eval_batches(source, options, process_index=i, process_count=processes))
        for i in range(processes)
    ]
    assert {len(part) for part in parts} == {eval_steps(source, options)} == {-(-count // 4)}
    seen = [b["image"][b["mask"], 0, 0, 0] for step in zip(*parts, strict=True) for b in step]
    assert np.concatenate(seen).tolist() == list(range(count))
    for part in parts:
        for batch in part:
            assert batch["image"].shape == (4 // processes, *SIZE, 3)
            np.testing.assert_array_equal(
                batch["label"], batch["mask"] * (batch["image"][:, 0, 0, 0] % 3)
            )
            assert not batch["image"][~batch["mask"]].any()


def test_evaluation_images_equal_torchvisions(folder):
    view = transforms.Compose(
        [transforms.Resize(256, InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    options = eval_input(image_size=(224, 224), batch_size=4)
    images = np.concatenate([b["image"][b["mask"]] for b in collect(eval_batches(folder, options))])
    assert len(images) == len(folder)
    for i, image in enumerate(images):
        pixels, _ = read_image(folder, i)
        np.testing.assert_array_equal(image, np.asarray(view(Image.fromarray(pixels))))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_is_named(tmp_path, workers):
    for i in range(6):
        path = tmp_path / "train" / "ant" / f"{i}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30)).save(path)
    source = open_source("folder", "train", str(tmp_path))
    path.write_bytes(path.read_bytes()[:300])
    options = eval_input(image_size=SIZE, batch_size=2, workers=workers, threads=1)
    batches = eval_batches(source, options)
    with pytest.raises(ValueError, match=r"1 damaged records .*/ant/5\.jpeg"):
        list(batches)
    assert list(batches) == []
    if workers:
        return
    path.unlink()
    with pytest.raises(ValueError, match=r"ant/5\.jpeg"), eval_batches(source, options) as batches:
        list(batches)


def test_an_impossible_label_is_named():
    source = ArraySource("mine", np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 2], ["a", "b"])
    options = eval_input(image_size=SIZE, batch_size=3)
    with pytest.raises(ValueError, match=r"Record mine\[2\] has label 2, but mine has 2 classes"):
        collect(eval_batches(source, options))


def test_impossible_requests_are_refused():
    source = numbers(7)
    options = train_input(image_size=SIZE, batch_size=8)
    with pytest.raises(ValueError, match="make it a multiple of 3"):
        train_batches(source, options, num_steps=1, process_count=3)
    with pytest.raises(ValueError, match="make it a multiple of 3"):
        eval_batches(source, eval_input(image_size=SIZE, batch_size=8), process_count=3)
    with pytest.raises(ValueError, match="Process 2 of 2"):
        train_batches(source, options, num_steps=1, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="start_step 5 lies outside the 4 steps"):
        train_batches(source, options, start_step=5, num_steps=4)
    assert collect(train_batches(source, options, start_step=4, num_steps=4)) == []
    with pytest.raises(ValueError, match="numbers holds no images"):
        train_batches(numbers(0), options, num_steps=1)
