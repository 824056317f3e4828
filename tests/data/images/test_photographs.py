"""Evaluation images of real photographs in every form, bit for bit as torchvision's, file to batch.

Photographs: two of scikit-learn, one of matplotlib, which both carry as samples.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from deit_jax.augment.normalise import to_input
from deit_jax.data.images import decode, resize
from deit_jax.data.open import open_source
from deit_jax.data.stream.loader import eval_batches
from deit_jax.evaluation.metrics import evaluate, make_eval_step, measure
from deit_jax.preprocessing import EvalView
from deit_jax.schema.images import IMAGENET_MEAN, IMAGENET_STD
from deit_jax.sharding import create_mesh, split_over_batch
from tests.inputs import eval_input

_SAMPLES = pathlib.Path(sklearn.datasets.__file__).parent / "images"
CHINA, FLOWER = _SAMPLES / "china.jpg", _SAMPLES / "flower.jpg"
PORTRAIT = pathlib.Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


def rotated(image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif, "quality": 92}


def write_photographs(folder):
    """Writes each form once; returns how many."""
    folder.mkdir(parents=True)
    for path in (CHINA, FLOWER, PORTRAIT):
        (folder / f"as it is {path.stem}.jpg").write_bytes(path.read_bytes())
    china, flower, portrait = (Image.open(p).convert("RGB") for p in (CHINA, FLOWER, PORTRAIT))
    transparent = flower.copy()
    transparent.putalpha(flower.convert("L"))
    deep = Image.fromarray(np.asarray(china.convert("L"), np.uint16) * 257)
    forms = {
        "grey.jpeg": (china.convert("L"), {}),
        "progressive.jpeg": (portrait, {"progressive": True}),
        "full colour.jpeg": (flower, {"subsampling": "4:4:4", "quality": 97}),
        "half colour.jpeg": (flower, {"subsampling": "4:2:2", "quality": 60}),
        "cmyk.jpeg": (china.convert("CMYK"), {}),
        "rgb without transform.jpeg": (flower, {"keep_rgb": True}),
        "turned.jpeg": (portrait, rotated(portrait, 6)),
        "mirrored.jpeg": (china, rotated(china, 2)),
        "one pixel.jpeg": (china.crop((100, 100, 101, 101)), {}),
        "one pixel.png": (china.crop((100, 100, 101, 101)), {}),
        "narrow.jpeg": (china.crop((0, 0, 5, 300)), {}),
        "low.jpeg": (china.crop((0, 0, 300, 5)), {}),
        "very narrow.png": (china.crop((0, 0, 3, 400)), {}),
        "small.jpeg": (portrait.resize((33, 47)), {}),
        "just right.png": (china.crop((0, 0, 256, 256)), {}),
        "transparent.png": (transparent, {}),
        "grey transparent.png": (transparent.convert("LA"), {}),
        "palette.png": (china.quantize(256), {}),
        "palette transparent.png": (flower.quantize(31), {"transparency": 3}),
        "two colours.png": (portrait.convert("1"), {}),
        "sixteen bits.png": (deep, {}),
        "sixteen bits.tiff": (deep, {}),
        "compressed.webp": (flower, {"quality": 80}),
        "plain.bmp": (portrait, {}),
        "plain.ppm": (china, {}),
    }
    for name, (image, options) in forms.items():
        image.save(folder / name, **options)
    # As the one PNG in ImageNet that is called JPEG.
    (folder / "really png.jpeg").write_bytes((folder / "transparent.png").read_bytes())
    return len(list(folder.iterdir()))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    assert write_photographs(root / "val" / "all") == 29
    return root


@pytest.fixture(params=["fast", "Pillow"])
def libraries(request, monkeypatch):
    if request.param == "Pillow":
        monkeypatch.setattr(decode, "_simplejpeg", None)
        monkeypatch.setattr(resize, "_kernel", lambda: None)
    else:
        pytest.importorskip("simplejpeg")
        pytest.importorskip("numba")
    return request.param


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("size", "crop_ratio"), [(224, 0.875), (224, 1.0), (384, 1.0), (160, 0.95), (16, 0.5)]
)
def test_pixels_equal_torchvisions(photographs, size, crop_ratio):
    view = transforms.Compose(
        [
            transforms.Resize(int(size / crop_ratio), transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
        ]
    )
    theirs = ImageFolder(photographs / "val", view)
    source = open_source("folder", "val", str(photographs))
    options = eval_input(
        image_size=(size, size),
        batch_size=8,
        view=EvalView.keeping(crop_ratio),
        threads=1,
        max_damaged=0,
    )
    with eval_batches(source, options) as batches:
        ours = np.concatenate([batch["image"][batch["mask"]] for batch in batches])
    assert len(ours) == len(theirs) == 29
    for number, image in enumerate(ours):
        assert theirs.samples[number][0].endswith(source.path(number))
        different = (image != np.asarray(theirs[number][0])).sum()
        assert different == 0, (source.path(number), different)


class Watching:
    """A model without weights, or rather what evaluation calls of one; keeps what it is shown."""

    def __init__(self):
        self.shown = []

    def head_logits(self, params, batch_stats, images):
        jax.debug.callback(self.shown.append, images)
        return (images.mean((1, 2)), None), batch_stats


def with_metrics(model, batches, mesh):
    step = make_eval_step(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    evaluate(step, {"raw": ({}, {})}, batches, mesh)


def with_answers(model, batches, mesh):
    measure(model, ({}, {}), batches, mesh, 29, mean=IMAGENET_MEAN, std=IMAGENET_STD)


@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize("run", [with_metrics, with_answers])
def test_what_the_network_is_shown_equals_torchvisions_tensors(photographs, run):
    """Inside jit, where compilers may compute in another order, with the batch over all devices."""
    view = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    theirs = ImageFolder(photographs / "val", view)
    model, mesh = Watching(), create_mesh()
    source = open_source("folder", "val", str(photographs))
    with eval_batches(source, eval_input(image_size=(224, 224), batch_size=16)) as batches:
        run(model, batches, mesh)
    jax.effects_barrier()
    shown = np.concatenate(model.shown)
    # Two batches of 16; rows beyond the 29th fill up.
    assert shown.shape == (32, 224, 224, 3) and shown.dtype == np.float32
    for number, (tensor, _) in enumerate(theirs):
        expected = tensor.permute(1, 2, 0).numpy()
        different = (shown[number].view(np.int32) != expected.view(np.int32)).sum()
        assert different == 0, (source.path(number), different)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (IMAGENET_MEAN, IMAGENET_STD),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ],
)
def test_every_level_is_normalised_as_by_torchvision(mean, std):
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)[None]
    theirs = transforms.Normalize(mean, std)(transforms.ToTensor()(levels)).permute(1, 2, 0)
    assert theirs.dtype == torch.float32
    for look_up in (to_input, jax.jit(to_input, static_argnums=(1, 2))):
        ours = np.asarray(look_up(jnp.asarray(levels)[None], mean, std))[0]
        np.testing.assert_array_equal(ours.view(np.int32), theirs.numpy().view(np.int32))


def test_looking_levels_up_moves_nothing_between_devices(eight_devices):
    sharding = split_over_batch(eight_devices)
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.uint8, sharding=sharding)
    compiled = jax.jit(to_input, static_argnums=(1, 2)).lower(images, IMAGENET_MEAN, IMAGENET_STD)
    program = compiled.compile()
    assert program.output_shardings.is_equivalent_to(sharding, 4)
    assert not re.search("all-gather|all-reduce|all-to-all|collective", program.as_text())
