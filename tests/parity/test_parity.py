"""Every published architecture beside timm, transformers and plain PyTorch: each layer, each head.

Float32 on both sides. Activations may differ by 1e-5 of a layer's largest value and gradients by
1e-4 of a tensor's largest: some hundred sums in another order, 6e-8 each; seen are 1e-6 and 3e-6.
"""

import pytest

from deit_jax.parity.activations import compare_activations, layer_names, our_activations
from deit_jax.parity.gradients import compare_gradients, labels_for, our_gradients
from deit_jax.parity.our_model import random_subject
from deit_jax.parity.torch_models import AGAINST, build_torch_side
from tests.parity.our_models import images_of, small, with_depth

PUBLISHED = (
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit_base_patch16_384",
    "deit_base_distilled_patch16_384",
    "deit3_small_patch16_224",
    "deit3_base_patch16_384",
)


def check(subject, gradients=False, batch=2):
    images = images_of(subject, batch)
    layers, labels = layer_names(subject), labels_for(subject, batch)
    ours = our_activations(subject, images)
    our_grads = our_gradients(subject, images, labels) if gradients else None
    assert list(ours) == layers
    for against in AGAINST:
        if against == "transformers" and subject.module.deit3:
            continue
        other = build_torch_side(subject, against)
        section = compare_activations(ours, other, images, 1e-5)
        # Every layer has its counterpart: patches, tokens, five results a block, norm, logits.
        heads = 2 if subject.module.has_distillation_head else 1
        assert len(section.rows) == len(ours) == 2 + 5 * subject.module.depth + 1 + heads + 1
        assert section.first is None, (against, section.first)
        if gradients:
            section = compare_gradients(our_grads, other, images, labels, layers, 1e-4)
            assert section.first is None, (against, section.first)
            total = sum(row.size for row in section.rows)
            assert total == sum(p.numel() for p in other.model.parameters())


# At full size, but beside timm alone, in models/test_vit_parity.py too.
@pytest.mark.full
def test_tiny_distilled_at_full_size_with_gradients():
    check(random_subject("deit_tiny_distilled_patch16_224", 0), gradients=True)


def test_one_block_of_tiny_distilled_with_gradients():
    check(with_depth("deit_tiny_distilled_patch16_224", 1), gradients=True)


# One head alone is also that of `test_images_that_are_not_square`, with gradients.
@pytest.mark.full
def test_tiny_at_full_size():
    check(random_subject("deit_tiny_patch16_224", 0))


@pytest.mark.parametrize(
    "name",
    [
        "deit_small_distilled_patch16_224",
        pytest.param("deit_base_distilled_patch16_384", marks=pytest.mark.full),
    ],
)
def test_one_block_of_the_others(name):
    check(with_depth(name, 1), batch=1)


def test_one_block_of_deit_iii_with_gradients():
    check(with_depth("deit3_small_patch16_224", 1), gradients=True, batch=1)


@pytest.mark.parametrize("distilled", [True, False])
def test_images_that_are_not_square(distilled):
    check(small(distilled, depth=1), gradients=not distilled)


@pytest.mark.full
@pytest.mark.parametrize(
    # Stem, blocks, what follows them in EfficientNet, head, logits.
    ("name", "results"),
    [("regnety_160", 1 + 18 + 2), ("resnet50", 1 + 16 + 2), ("efficientnet_b0", 1 + 16 + 3)],
)
def test_every_block_of_the_teachers(name, results):
    subject = random_subject(name, 0)
    images = images_of(subject, 1)
    ours = our_activations(subject, images)
    section = compare_activations(ours, build_torch_side(subject, "timm"), images, 1e-5)
    assert len(section.rows) == results and section.first is None


@pytest.mark.full
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_architecture(name):
    check(random_subject(name, 1), gradients=True, batch=1 if "384" in name else 2)
