"""The planned memory: closed forms, and what the compiler says of a compiled step."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from configs.digits import get_config
from deit_jax.devices import machine_memory_bytes
from deit_jax.models.functional import abstract
from deit_jax.scale.activations import kept_by_image
from deit_jax.scale.memory_plan import Settings, Workload, part_of
from deit_jax.scale.remedies import remedies
from deit_jax.schema import Config
from deit_jax.sharding import create_mesh, split_over_batch
from deit_jax.training import memory
from deit_jax.training.memory import machine_note, memory_sentence, settings_of, workload_of
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.programs import build_programs, student_builder
from deit_jax.training.state import create_state


def shape(*axes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(axes, dtype)


def workload(blocks=4):
    """A network of one large matrix and a vector, whose images need 1 MB, or 100 kB."""
    params = {"kernel": shape(1000, 1000), "bias": shape(1000)}
    state = {"params": params, "batch_stats": {}, "opt_state": (params, params), "ema": params}
    kept = {"none": 1_000_000, "blocks": 100_000}
    return Workload(state, params, {}, 100, 2, blocks, kept.__getitem__)


def test_each_part_is_counted_as_it_is_held():
    plan = workload().plan(Settings(batch=64, devices=8, fsdp=4))
    part = 4 * (1_000_000 // 4 + 1000)
    assert (plan.parameters, plan.gradients, plan.optimizer, plan.average) == (
        part,
        part,
        2 * part,
        part,
    )
    # The whole matrix in bfloat16; eight images, as bytes and in float32.
    assert (plan.gathered, plan.activations, plan.batch) == (2_000_000, 8_000_000, 8 * 300 * 5)
    assert plan.total == plan.held + plan.gradients + 2_000_000 + 8_000_000 + plan.batch


def test_slices_and_computing_again_need_less():
    plan = partial(workload().plan)
    sliced = plan(Settings(64, 8, micro_batches=4))
    assert sliced.activations == 2_000_000 and sliced.gradients == 2 * sliced.parameters
    again = plan(Settings(64, 8, fsdp=8, remat="blocks"))
    # The inputs, and one of the three blocks that compute all tokens.
    assert again.activations == 8 * (100_000 + 300_000)
    assert again.gathered == 2 * 2_000_000 // 4


def test_what_would_make_it_fit_is_found_for_each_key():
    now = Settings(batch=64, devices=8)
    total = workload().plan(now).total
    assert remedies(workload(), now, total - 1) == [
        "--config.mesh.fsdp=2",
        "--config.training.remat=blocks",
        # With two, what their images save the second set of gradients takes.
        "--config.training.micro_batches=4",
        "--config.training.batch_size=56",
    ]
    assert "--config.training.micro_batches=8" in remedies(workload(), now, total - 2_100_000)
    # Neither split nor computed again alone, but both.
    assert remedies(workload(), now, 7_000_000)[0] == (
        "--config.mesh.fsdp=8 --config.training.remat=blocks"
    )
    # A convnet has no blocks and is not sliced.
    assert remedies(workload(blocks=0), now, 21_000_000) == ["--config.mesh.fsdp=2"]
    all_together = ["--config.mesh.fsdp=8 --config.training.batch_size=8"]
    assert remedies(workload(blocks=0), now, 12_000_000) == all_together
    assert remedies(workload(blocks=0), now, 5_000_000) == []


def test_a_run_is_told_and_refused():
    now, work = Settings(batch=64, devices=8), workload()
    plan = work.plan(now)
    assert memory_sentence(work, now, 0).endswith("batch).")
    assert "of 1.00 GB." in memory_sentence(work, now, 10**9)
    tight = memory_sentence(work, now, plan.total - 1)
    assert "too little by the plan; what would fit: --config.mesh.fsdp=2 or --config.tr" in tight
    with pytest.raises(ValueError, match=r"of each device, which has 0.02 GB; what would"):
        memory_sentence(work, now, plan.held - 1)
    with pytest.raises(ValueError, match=r"no setting makes it fit: take a smaller model"):
        memory_sentence(work, now, 10**6)


def test_a_machine_too_small_is_told_and_not_refused():
    now, work = Settings(batch=64, devices=1), workload()
    assert machine_note(work, now, work.plan(now).total) == ""
    note = machine_note(work, now, 64_000_000)
    assert note.startswith(" This machine has 0.06 GB for each, by the plan too little; what would")
    # Not remat, which saves nothing there.
    assert "training.micro_batches=2 or --config.training.batch_size=" in note
    assert "remat" not in note
    assert machine_note(work, now, 10**6).endswith("take a smaller model.")
    assert 2**28 < machine_memory_bytes() < 2**48


@pytest.mark.parametrize(("kind", "told"), [("cpu", True), ("gpu", False)])
def test_a_program_for_devices_elsewhere_says_nothing_of_this_machine(kind, told, monkeypatch):
    monkeypatch.setattr(memory, "machine_memory_bytes", lambda: 1)
    monkeypatch.setattr(memory, "workload_of", lambda *_: workload())
    monkeypatch.setattr(memory, "platform_of", lambda _: kind)
    text = memory.say_memory(Config.of(get_config("hard")), {}, {}, create_mesh(), 0)
    assert ("This machine has" in text) == told


def test_kept_bytes_of_two_layers_are_their_inputs():
    def forward(params, batch_stats, images, keys):
        hidden = jnp.sin(images.reshape(images.shape[0], -1) @ params["a"])
        return jnp.sin(hidden @ params["b"])

    params = {"a": shape(48, 8), "b": shape(8, 5)}
    count = kept_by_image({"none": forward}, (params, {}), (4, 4), create_mesh(), recomputed=False)
    # The pixels were given; cos of both products, and the input of the second. The widest twice.
    assert count("none") == 4 * (8 + 8 + 5) + 2 * 4 * 8


def test_of_a_convnet_what_follows_from_results_is_not_kept():
    def forward(params, batch_stats, images, keys):
        half = jnp.bfloat16
        mapped = jax.lax.conv_general_dilated(
            images.astype(half),
            params["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        ).astype(jnp.float32)
        normal = (mapped - mapped.mean((0, 1, 2))) * params["scale"]
        shown = jax.nn.relu(normal).astype(half)
        return shown.reshape(shown.shape[0], -1) @ params["head"]

    params = {"kernel": shape(3, 3, 3, 8, dtype=jnp.bfloat16), "scale": shape(8)}
    params["head"] = shape(4 * 4 * 8, 5, dtype=jnp.bfloat16)
    counts = [
        kept_by_image({"none": forward}, (params, {}), (4, 4), create_mesh(), recomputed=fused)
        for fused in (True, False)
    ]
    # What both products are given, and the convolution's result, in bfloat16; the widest twice.
    # Not in float32: less the mean, and the mask of ReLU.
    assert counts[0]("none") == 2 * (4 * 4 * 3 + 2 * 4 * 4 * 8) + 2 * 2 * 4 * 4 * 8
    assert counts[1]("none") > 2 * counts[0]("none")


def digits(fsdp):
    config = get_config("none")
    config.model.name = "deit_micro_distilled_patch4_16"
    config.training.batch_size = 128
    config.mesh.fsdp = fsdp
    return Config.of(config)


@pytest.mark.parametrize(("fsdp", "heads"), [(1, False), (4, False), (8, True)])
def test_the_state_is_what_devices_hold(fsdp, heads, eight_devices):
    config = digits(fsdp)
    build = student_builder(config)
    params = abstract(build)[1]
    create = partial(create_state, build, make_optimizer(config.optimizer, params), ema=True)
    state = jax.eval_shape(create, jax.random.key(0))
    work = workload_of(config, state, {}, create_mesh(fsdp))
    plan = work.plan(settings_of(config, 8))
    assert plan.parameters == plan.average == part_of(params, fsdp)
    # Two moments, and a count.
    assert plan.optimizer == 2 * plan.parameters + 4
    assert plan.gradients == plan.parameters


def test_what_is_frozen_has_no_gradient():
    config = digits(1)
    config = replace(config, training=replace(config.training, parts="heads", micro_batches=2))
    programs = build_programs(config, create_mesh(), None, steps_per_epoch=10.0)
    work = workload_of(config, programs.abstract_state, {}, create_mesh())
    params = programs.abstract_state["params"]
    # The distillation head too: without a teacher both learn the labels.
    heads = part_of([params["head"], params["head_dist"]], 1)
    assert work.plan(settings_of(config, 1)).gradients == 2 * heads


@pytest.mark.full
@pytest.mark.parametrize("fsdp", [1, 4])
def test_the_compiler_holds_what_was_planned(fsdp, eight_devices, quick_compilation):
    config, mesh = digits(fsdp), create_mesh(fsdp)
    programs = build_programs(config, mesh, None, steps_per_epoch=10.0)
    rows = split_over_batch(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((128,), jnp.int32, sharding=rows)
        for name in ("label", "epoch", "index", "copy")
    }
    batch["image"] = jax.ShapeDtypeStruct((128, 16, 16, 3), jnp.uint8, sharding=rows)
    compiled = programs.train_step.lower(programs.abstract_state, {}, batch).compile()
    found = compiled.memory_analysis()
    plan = workload_of(config, programs.abstract_state, {}, mesh).plan(settings_of(config, 8))
    held = plan.held + plan.batch // 5
    # Beside the state its counters and sums, and four numbers of each image.
    assert 0 <= found.argument_size_in_bytes - held < 2000
    assert found.alias_size_in_bytes >= plan.held
