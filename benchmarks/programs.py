"""The house's own programs of a case, before anything is computed or compiled.

Their arguments are made by functions that can be traced, so that shapes alone suffice where the
device is elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from benchmarks.cases import IMAGENET_TRAIN_IMAGES, OURS, Case, train_config
from deit_jax.devices import compiler_options
from deit_jax.models.attention import AttentionForm
from deit_jax.models.frozen import fold_batch_norm
from deit_jax.models.functional import Builder, ModelFunction, abstract, initialise
from deit_jax.models.fusion import fuse
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.schema import Config
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.sharding import batch_split_over, split_over_batch
from deit_jax.training.example import Batch
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import create_state
from deit_jax.training.step import make_train_step
from deit_jax.trees import Tree


@dataclass(frozen=True)
class Parts:
    """A program to be compiled.

    Attributes:
        function: of whole arguments, and of a batch as the last one.
        whole: makes the others: parameters, or a state and the teacher's parameters.
        batch: makes the batch.
        donated: indices of arguments whose memory is given up.
        options: XLA's, see `compiler_options`.
    """

    function: Callable[..., Any]
    whole: Callable[[], tuple[Any, ...]]
    batch: Callable[[], Any]
    donated: tuple[int, ...] = ()
    options: dict[str, Any] | None = None


def inference(case: Case, platform: str, mesh: Mesh | None = None) -> Parts:
    """Return the forward pass of a frozen model; over the devices of a mesh, if one is given.

    `platform` is what is compiled for.
    """
    own = dict(residual_dtype=jnp.dtype(case.residual), fused_kernels=case.kernels)
    function, params = _frozen(case.model, case, **own)
    height, width = model_spec(case.model).image_size

    def predict(params: Tree, images: Float[Array, "batch height width 3"]) -> Array:
        with batch_split_over(mesh):
            heads, _ = function.head_logits(params, {}, images)
        return fuse(*heads)

    def images() -> Array:
        return jax.random.normal(jax.random.key(0), (case.batch_size, height, width, 3))

    options = compiler_options(platform)
    return Parts(predict, lambda: (params(),), images, options=options)


def training(
    case: Case,
    micro_batches: int,
    name: str,
    platform: str,
    *,
    depth: int = 0,
    mesh: Mesh | None = None,
) -> Parts:
    """Return the real train step, without augmentation and mixing.

    Args:
        case: of mode "train" or "distill".
        micro_batches: slices that a batch is run in.
        name: of the program, which says how attention is computed (`OURS`).
        platform: that is compiled for.
        depth: blocks of the trained transformer; 0: as many as it has.
        mesh: devices that the batch is split over; None for the default one.
    """
    config = train_config(case, micro_batches)
    build = _student_builder(case, config.model, OURS[name], depth)
    student, params, _ = abstract(build)
    teacher: ModelFunction | None = None
    teacher_params: Callable[[], Tree] = dict
    if case.mode == "distill":
        teacher, teacher_params = _frozen(case.teacher, case)
    optimizer = make_optimizer(config.optimizer, params)
    augment = replace(NORMALISED, mean=config.augment.mean, std=config.augment.std)
    step = make_train_step(
        student,
        teacher,
        optimizer,
        replace(Config.of(config), augment=augment, mix=UNMIXED),
        steps_per_epoch=IMAGENET_TRAIN_IMAGES / case.batch_size,
        sharding=split_over_batch(mesh) if mesh else None,
    )
    create = jax.jit(partial(create_state, build, optimizer, ema=config.ema.decay > 0))
    options = compiler_options(platform)

    def whole() -> tuple[Tree, Tree]:
        return create(jax.random.key(config.seed)), teacher_params()

    return Parts(step, whole, partial(_batch, case), (0,), options)


def _student_builder(case: Case, model: Any, attention: AttentionForm, depth: int) -> Builder:
    options: dict[str, Any] = dict(
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        dtype=jnp.dtype(case.dtype),
        residual_dtype=jnp.dtype(model.residual_dtype),
        fused_kernels=model.fused_kernels,
        attention=attention,
    )
    if not depth:
        return model_builder(case.model, **options)
    spec = model_spec(case.model)
    sizes = dict(num_classes=spec.num_classes, image_size=spec.image_size)
    return lambda rngs: spec.resized(depth=depth).build(rngs=rngs, **sizes, **options)


def frozen(
    name: str, dtype: str, *, num_classes: int, image_size: tuple[int, int], **options: Any
) -> tuple[ModelFunction, Callable[[], Tree]]:
    """Return a random model in its inference form, and what makes its parameters.

    Args:
        name: a registered name.
        dtype: operands of products.
        num_classes: of each head.
        image_size: (height, width) in pixels.
        **options: more of those of `model_builder`.
    """
    build = model_builder(
        name, num_classes=num_classes, image_size=image_size, dtype=jnp.dtype(dtype), **options
    )
    structure = abstract(build)[0]
    functions: list[ModelFunction] = []

    def make() -> Tree:
        function, params = fold_batch_norm(structure, *initialise(build, jax.random.key(0)))
        functions.append(function)
        return params

    jax.eval_shape(make)
    return functions[0], jax.jit(make)


def _frozen(name: str, case: Case, **own: Any) -> tuple[ModelFunction, Callable[[], Tree]]:
    """A model for the images and classes of the case's."""
    spec = model_spec(case.model)
    size = spec.image_size
    return frozen(name, case.dtype, num_classes=spec.num_classes, image_size=size, **own)


def _batch(case: Case) -> Batch:
    """uint8 images that are already on the device."""
    spec, size = model_spec(case.model), case.batch_size
    draw = np.random.default_rng(0)
    index = np.arange(size, dtype=np.int32)
    zeros = np.zeros(size, np.int32)
    batch = {
        "image": draw.integers(0, 256, (size, *spec.image_size, 3), np.uint8),
        "label": draw.integers(0, spec.num_classes, size, np.int32),
        "epoch": zeros,
        "index": index,
        "copy": zeros,
    }
    return jax.device_put(batch)
