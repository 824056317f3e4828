"""What the networks see of a batch: augmented and mixed images, targets, the teacher's answers."""

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
from deit_jax.training.distillation.labels import Kept, KeptAnswers, TeacherLabels
from deit_jax.training.distillation.view import TeacherView
from deit_jax.trees import Tree

Batch = dict[str, Shaped[Array, "batch ..."]]
AnyTeacher = ModelFunction | TeacherView | KeptAnswers


@dataclass(frozen=True)
class Example:
    """What the networks see of a batch, or of its slices, after augmentation and mixing."""

    images: Float[Array, "*batch height width 3"]
    targets: Float[Array, "*batch classes"]
    teacher_logits: Float[Array, "*batch classes"] | None
    model_keys: Key[Array, "*batch"]


jax.tree_util.register_dataclass(Example, ["images", "targets", "teacher_logits", "model_keys"], [])


def make_prepare(
    teacher: AnyTeacher | None, config: Config, sharding: NamedSharding | None, kept: Kept | None
) -> Callable[[Tree, Batch], tuple[Example, TeacherLabels]]:
    """Return what makes of a batch what the networks see, and asks the teacher."""

    def prepare(teacher_params: Tree, batch: Batch) -> tuple[Example, TeacherLabels]:
        keys = image_keys(config.seed, batch["epoch"], batch["index"], batch["copy"])
        images = augment_images(batch["image"], purpose(keys, "augment"), config.augment, sharding)
        targets = one_hot_targets(
            batch["label"], config.model.num_classes, config.training.label_smoothing
        )
        images, targets = mix(images, targets, purpose(keys, "mix"), config.mix)
        teacher_logits, labels = None, {}
        if teacher is not None:
            # The very images the student sees, mixed and erased (paper, section 4).
            heads, _ = teacher.head_logits(teacher_params, {}, images)
            teacher_logits = jax.lax.stop_gradient(fuse(*heads))
        if teacher_logits is not None and kept is not None:
            labels = kept.encode(teacher_logits)
            teacher_logits = kept.decode(labels)
        return Example(images, targets, teacher_logits, purpose(keys, "model")), labels

    return prepare


def make_answer(
    teacher: AnyTeacher, config: Config, kept: Kept, sharding: NamedSharding | None = None
) -> Callable[[Tree, Batch], TeacherLabels]:
    """Return `answer(teacher_params, batch) -> labels`: what a step asks the teacher, no more."""
    prepare = make_prepare(teacher, config, sharding, kept)

    def answer(teacher_params: Tree, batch: Batch) -> TeacherLabels:
        return prepare(teacher_params, batch)[1]

    return on_mesh(answer, sharding)


def on_mesh(function: Callable[..., Any], sharding: NamedSharding | None) -> Callable[..., Any]:
    """Let what is traced inside know the mesh that the batch is split over."""

    def told(*arguments: Any) -> Any:
        with batch_split_over(sharding.mesh if sharding else None):
            return function(*arguments)

    return told
