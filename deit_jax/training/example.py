"""What the networks see of a batch: augmented and mixed images, targets, the teacher's logits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Key, Shaped

from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import mix, one_hot_targets
from deit_jax.augment.pipeline import augment_images
from deit_jax.models.functional import ModelFunction
from deit_jax.models.fusion import fuse
from deit_jax.schema import Config
from deit_jax.sharding import batch_split_over
from deit_jax.training.distillation.view import TeacherView
from deit_jax.training.label_losses import Logits
from deit_jax.trees import Tree

Batch = dict[str, Shaped[Array, "batch ..."]]
AnyTeacher = ModelFunction | TeacherView
BatchImages = Float[Array, "batch height width 3"]


@dataclass(frozen=True)
class Example:
    """What the networks see of a batch, or of its slices, after augmentation and mixing."""

    images: Float[Array, "*batch height width 3"]
    targets: Float[Array, "*batch classes"]
    teacher_logits: Float[Array, "*batch classes"] | None
    model_keys: Key[Array, "*batch"]


jax.tree_util.register_dataclass(Example, ["images", "targets", "teacher_logits", "model_keys"], [])


def make_prepare(
    config: Config, sharding: NamedSharding | None = None
) -> Callable[[Batch], Example]:
    """Return `prepare(batch) -> example`: augmentation and mixing, before the teacher is asked."""

    def prepare(batch: Batch) -> Example:
        keys = image_keys(config.seed, batch["epoch"], batch["index"], batch["copy"])
        images = augment_images(batch["image"], purpose(keys, "augment"), config.augment, sharding)
        targets = one_hot_targets(
            batch["label"], config.model.num_classes, config.training.label_smoothing
        )
        images, targets = mix(images, targets, purpose(keys, "mix"), config.mix)
        return Example(images, targets, None, purpose(keys, "model"))

    return on_mesh(prepare, sharding)


def ask(teacher: AnyTeacher, params: Tree, images: BatchImages) -> Logits:
    """Return the teacher's logits for the very images the student sees (paper, section 4)."""
    heads, _ = teacher.head_logits(params, {}, images)
    return jax.lax.stop_gradient(fuse(*heads))


def on_mesh(function: Callable[..., Any], sharding: NamedSharding | None) -> Callable[..., Any]:
    """Let what is traced inside know the mesh that the batch is split over."""

    def told(*arguments: Any) -> Any:
        with batch_split_over(sharding.mesh if sharding else None):
            return function(*arguments)

    return told
