"""Teachers: any weights file and model, and what they are shown of the student's images."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from configs.digits import get_config
from deit_jax.models.functional import abstract
from deit_jax.models.fusion import fuse
from deit_jax.models.registry import model_builder
from deit_jax.training.distillation.teacher import load_teacher
from deit_jax.weights.transformer_layout import to_foreign
from tests.weights.description.described import timm_directory
from tests.weights.small_models import timm_model, torch_logits

IMAGES = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)

pytestmark = pytest.mark.usefixtures("quick_compilation")


def save_random(path, name, **options):
    """Write random weights under timm's names; return the live function and trees."""
    function, *trees = abstract(model_builder(name, **options))
    rng = np.random.default_rng(0)

    def draw(leaf_path, leaf):
        spread = (1.0 / np.prod(leaf.shape[:-1])) ** 0.5 if leaf.ndim > 1 else 0.1
        centre = 1.0 if leaf_path[-1].key in ("scale", "var") else 0.0
        return np.float32(rng.normal(centre, spread, leaf.shape))

    params, stats = (jax.tree.map_with_path(draw, tree) for tree in trees)
    save_file(to_foreign(params, stats, "timm", name), path)
    return function, params, stats


def configure(path, name, **teacher):
    config = get_config("hard")
    config.augment.mean, config.augment.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    settings = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "dtype": "float32"}
    config.teacher.update({"weights": str(path), "name": name, **settings, **teacher})
    return config


def ask(teacher, images=IMAGES):
    (logits, second), stats = jax.jit(teacher.function.head_logits)(teacher.params, {}, images)
    assert second is None and stats == {}
    return np.asarray(logits)


@pytest.fixture(scope="module")
def convnet(tmp_path_factory):
    path = tmp_path_factory.mktemp("convnet") / "weights.safetensors"
    function, params, stats = save_random(path, "regnety_micro")
    return path, jax.jit(lambda images: function.head_logits(params, stats, images)[0][0])


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_convnet_from_a_file_is_folded_and_the_same(convnet):
    path, network = convnet
    teacher = load_teacher(configure(path, "regnety_micro"))
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(teacher.params)]
    assert not any("bn" in name for name in names)
    # The same numbers multiplied in another order, in float32.
    close(ask(teacher), network(IMAGES))
    assert teacher.facts == {
        "name": "regnety_micro",
        "weights": str(path),
        "step": None,
        "top1": None,
        "ema": False,
    }


def test_transformer_teaches_with_both_heads(tmp_path):
    name = "deit_micro_distilled_patch4_16"
    function, params, _ = save_random(tmp_path / "w.safetensors", name)
    teacher = load_teacher(configure(tmp_path / "w.safetensors", name))
    heads = jax.jit(function.head_logits)(params, {}, IMAGES)[0]
    close(ask(teacher), fuse(*heads))
    # Another size: its position embeddings are resized when it is loaded, the images in the step.
    larger = load_teacher(configure(tmp_path / "w.safetensors", name, image_size=(24, 32)))
    assert larger.params["pos_embed"].shape == (1, 2 + 6 * 8, 64)
    assert ask(larger).shape == (4, 10)


def test_own_normalisation_is_of_the_same_pixels(convnet):
    path, network = convnet
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    teacher = load_teacher(configure(path, "regnety_micro", mean=mean, std=std))
    pixels = IMAGES.astype(np.float64) * 0.25 + 0.5
    # Two roundings to float32 of each pixel.
    close(ask(teacher), network(np.float32((pixels - mean) / std)))


def test_own_size_is_resized_with_antialiasing(convnet):
    path, network = convnet
    for size in ((8, 12), (24, 20)):
        teacher = load_teacher(configure(path, "regnety_micro", image_size=size))
        resized = torch.nn.functional.interpolate(
            torch.from_numpy(IMAGES).permute(0, 3, 1, 2), size, mode="bilinear", antialias=True
        )
        close(teacher.function.convert(jnp.asarray(IMAGES)), resized.permute(0, 2, 3, 1).numpy())
        close(ask(teacher), network(resized.permute(0, 2, 3, 1).numpy()))


def test_normalisation_that_the_file_states_is_used(tmp_path):
    save_random(tmp_path / "model.safetensors", "regnety_micro")
    stated = {"architecture": "regnety_micro", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    config = configure(tmp_path, "regnety_micro", mean=())
    assert load_teacher(config).function.teacher == ((0.1, 0.2, 0.3), (0.25, 0.25, 0.25))


def test_normalisation_that_nothing_states_is_assumed_and_said(convnet, caplog):
    config = configure(convnet[0], "regnety_micro", mean=(), std=())
    view = load_teacher(config).function
    assert view.teacher == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert "Nothing says how images for the teacher" in caplog.text


def test_a_transformer_is_shown_images_at_the_size_of_its_weights(tmp_path, caplog):
    name, path = "deit_micro_patch4_16", tmp_path / "w.safetensors"
    function, params, _ = save_random(path, name, image_size=(24, 24))
    teacher = load_teacher(configure(path, name))
    assert teacher.function.image_size == (24, 24) and "at 24x24 pixels" in caplog.text
    larger = teacher.function.convert(IMAGES)
    close(ask(teacher), jax.jit(function.head_logits)(params, {}, larger)[0][0])
    other = load_teacher(configure(path, name, image_size=(16, 16)))
    assert other.params["pos_embed"].shape == (1, 1 + 4 * 4, 64)


def test_classes_are_matched_by_their_names(tmp_path):
    save_random(tmp_path / "model.safetensors", "regnety_micro")
    names = [f"kind {letter}" for letter in "abcdefghij"]
    stated = {"architecture": "regnety_micro", "label_names": names}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    config = configure(tmp_path, "regnety_micro")
    assert load_teacher(config, names).function.classes == ()
    turned = load_teacher(config, names[::-1])
    assert turned.function.classes == tuple(range(9, -1, -1)) and "another order" in turned.note
    with pytest.raises(ValueError, match=r"'kind a' is in only one.*--config\.teacher\.classes"):
        load_teacher(config, ["other", *names[1:]])
    assert "only the number" in load_teacher(config, list(map(str, range(10)))).note


def test_other_classes_need_a_mapping(tmp_path):
    path = tmp_path / "w.safetensors"
    function, params, stats = save_random(path, "regnety_micro", num_classes=13)
    config = configure(path, "regnety_micro")
    with pytest.raises(ValueError, match=r"has 13 classes, the student 10.*teacher.classes"):
        load_teacher(config)
    mapping = [12, 3, 0, 5, 7, 1, 11, 9, 2, 4]
    config.teacher.classes = str(tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("\n".join(map(str, mapping)))
    teacher = load_teacher(config)
    (logits, _), _ = jax.jit(function.head_logits)(params, stats, IMAGES)
    close(ask(teacher), np.asarray(logits)[:, mapping])
    (tmp_path / "classes.txt").write_text(json.dumps([*mapping[:-1], 13]))
    with pytest.raises(ValueError, match="0 to 12"):
        load_teacher(config)
    (tmp_path / "classes.txt").write_text("cat dog")
    with pytest.raises(ValueError, match="whole number"):
        load_teacher(config)


def test_weights_say_what_they_are_of(convnet, tmp_path, caplog):
    path, network = convnet
    # The default name, which nobody gave.
    teacher = load_teacher(configure(path, "regnety_160"))
    assert teacher.facts["name"] == "regnety_micro"
    close(ask(teacher), network(IMAGES))
    name = "deit_micro_distilled_patch4_16"
    save_random(tmp_path / "w.safetensors", name)
    assert load_teacher(configure(tmp_path / "w.safetensors", "regnety_160")).facts["name"] == name
    assert f"teacher {tmp_path}/w.safetensors: Nothing in the file describes" in caplog.text


def test_another_model_is_refused(convnet):
    with pytest.raises(ValueError, match="regnety_040"):
        load_teacher(configure(convnet[0], "regnety_040"))


def test_a_teacher_has_the_heads_of_its_description(tmp_path):
    theirs = timm_directory(tmp_path / "a", num_heads=8)
    teacher = load_teacher(configure(tmp_path / "a", "deit_micro_patch4_16"))
    close(ask(teacher), torch_logits(theirs, IMAGES))


def test_a_backbone_without_a_head_does_not_teach(tmp_path):
    state = timm_model().state_dict()
    torch.save({n: t for n, t in state.items() if "head" not in n}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="has no classification head, so it is no classifier"):
        load_teacher(configure(tmp_path / "a.pth", "deit_micro_patch4_16"))


def test_bfloat16_is_near(convnet):
    path, network = convnet
    teacher = load_teacher(configure(path, "regnety_micro", dtype="bfloat16"))
    # Eight bits in each of some fifteen layers.
    close(ask(teacher), network(IMAGES), 0.05)
