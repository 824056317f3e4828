"""What a run needs of each device's memory: said when it begins, and refused if it cannot be."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from deit_jax.devices import machine_memory_bytes
from deit_jax.models.functional import HeadLogits, abstract
from deit_jax.models.registry import model_spec
from deit_jax.scale.activations import kept_by_image
from deit_jax.scale.memory_plan import Settings, Workload
from deit_jax.scale.remedies import remedies
from deit_jax.schema import Config
from deit_jax.sharding import platform_of
from deit_jax.training.freezing import stop_gradients, trainable
from deit_jax.training.programs import student_builder
from deit_jax.training.state import TrainState
from deit_jax.trees import Tree


def settings_of(config: Config, devices: int) -> Settings:
    """Return what of a configuration decides about memory."""
    training = config.training
    return Settings(
        training.batch_size, devices, config.mesh.fsdp, training.micro_batches, training.remat
    )


def workload_of(config: Config, state: TrainState, teacher: Tree, mesh: Mesh) -> Workload:
    """Return what else does.

    Args:
        config: of the run.
        state: shapes of its state.
        teacher: shapes of its teacher's parameters; {} without one.
        mesh: of the devices.
    """
    transformer = model_spec(config.model.name).transformer
    height, width = config.model.image_size
    kept = kept_by_image(
        {remat: _forward(config, remat) for remat in ("none", "blocks")},
        (state["params"], state["batch_stats"]),
        (height, width),
        mesh,
        recomputed=transformer is None,
    )
    trained = jax.tree.leaves(trainable(state["params"], config))
    # Two submodels see every image.
    views = 2 if config.training.cosub else 1
    return Workload(
        state=state,
        trained=list(itertools.compress(jax.tree.leaves(state["params"]), trained)),
        teacher=teacher,
        pixels=height * width,
        product_bytes=jnp.dtype(config.model.dtype).itemsize,
        blocks=transformer.depth if transformer else 0,
        kept=lambda remat: views * kept(remat),
    )


def _forward(config: Config, remat: str) -> Callable[..., HeadLogits]:
    config = replace(config, training=replace(config.training, remat=remat))
    frozen = config.training.eval_mode

    def forward(
        params: Tree,
        batch_stats: Tree,
        images: Float[Array, "batch height width 3"],
        keys: Key[Array, " batch"],
    ) -> HeadLogits:
        function, _, _ = abstract(student_builder(config))
        params = stop_gradients(params, trainable(params, config))
        return function.head_logits(
            params, batch_stats, images, keys=None if frozen else keys, train=not frozen
        )[0]

    return forward


def memory_sentence(work: Workload, settings: Settings, limit: int) -> str:
    """Say what is planned for each device, and what to do if it looks too much.

    Args:
        work: of the run.
        settings: of it.
        limit: bytes of a device; 0 if it is unknown.

    Raises:
        ValueError: what is held between steps alone is more; one sentence.
    """
    plan = work.plan(settings)
    text = f"Memory of each device, planned: {plan.sentence()}"
    if not limit:
        return f"{text}."
    if plan.total <= limit:
        return f"{text} of {limit / 1e9:.2f} GB."
    found = remedies(work, settings, limit)
    remedy = (
        f"what would fit: {' or '.join(found)}"
        if found
        else "no setting makes it fit: take a smaller model, or devices with more memory"
    )
    if plan.held > limit:
        raise ValueError(
            f"The run needs {plan.sentence()} of each device, which has {limit / 1e9:.2f} GB; "
            f"{remedy}."
        )
    return f"{text} of {limit / 1e9:.2f} GB, which is too little by the plan; {remedy}."


def say_memory(config: Config, state: TrainState, teacher: Tree, mesh: Mesh, limit: int) -> str:
    """As `memory_sentence`, of a run; arguments as of `workload_of`."""
    work, settings = workload_of(config, state, teacher, mesh), settings_of(config, mesh.size)
    text = memory_sentence(work, settings, limit)
    if limit or platform_of(mesh) != "cpu":
        return text
    return text + machine_note(work, settings, machine_memory_bytes() // jax.local_device_count())


def machine_note(work: Workload, settings: Settings, share: int) -> str:
    """Return a sentence for CPUs that have less memory than planned; "" where they have enough.

    The plan is rough there, so that it refuses nothing; but a system that is out of memory ends
    the process without a word.

    Args:
        work: of the run.
        settings: of it.
        share: bytes of the machine for each device.
    """
    if work.plan(settings).total <= share:
        return ""
    # Computing blocks again saves nothing on CPUs: docs/scaling.md.
    found = [flags for flags in remedies(work, settings, share) if "training.remat" not in flags]
    remedy = f"what would fit: {' or '.join(found)}" if found else "take a smaller model"
    return f" This machine has {share / 1e9:.2f} GB for each, by the plan too little; {remedy}."
