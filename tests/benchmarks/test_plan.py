"""`python -m benchmarks.plan`: devices, saved plans, refusals; and the compilers where they are."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import plan as program
from benchmarks.cases import Case
from benchmarks.flops import vit_forward_flops
from benchmarks.planning import programs, saved, target
from benchmarks.planning.devices import known_devices, read_device, read_wanted
from benchmarks.planning.hlo import read_module
from benchmarks.planning.kernels import Kernel, read_kernels
from benchmarks.planning.plan import Plan, Share, make_plan, seconds_of
from benchmarks.planning.tables import change_section, plan_section
from configs.deit import get_config
from deit_jax.devices import PEAK_TFLOPS
from deit_jax.models.attention import attend
from deit_jax.models.functional import abstract
from deit_jax.models.fused import calls
from deit_jax.models.registry import model_builder, model_spec
from deit_jax.schema import Config
from deit_jax.sharding import batch_split_over, split_over_batch
from deit_jax.training.setup import set_up
from tests.config.reduced import reduce

CUDA = importlib.util.find_spec("jax_cuda13_plugin") is not None
LIBTPU = importlib.util.find_spec("libtpu") is not None
# In an environment of its own (`pip install 'deit_jax[plan]'`), which continuous integration lacks.
needs_cuda = pytest.mark.skipif(not CUDA, reason="needs the 5 GB of JAX's plug-in for CUDA")
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason="needs libtpu")
MICRO = "deit_micro_distilled_patch4_16"


def test_devices_are_no_faster_than_their_data_sheets():
    names = {"h200": "NVIDIA H200", "h100": "NVIDIA H100 80GB HBM3", "a100": "NVIDIA A100"}
    names |= {"v5e": "TPU v5 lite", "v6e": "TPU v6 lite", "v5p": "TPU v5p"}
    assert sorted(names) == known_devices()
    for name, kind in names.items():
        device = read_device(name)
        for dtype, rate in device.flops_per_second.items():
            assert 0.7 < rate / 1e12 / PEAK_TFLOPS[kind][dtype] <= 1
        if device.platform == "gpu":
            # The planned devices go by the names that such devices have.
            assert f'name: "{kind}' in device.compiler_target
            assert f"device_memory_size: {device.memory_bytes}\n" in device.compiler_target


@pytest.mark.parametrize(
    ("text", "shown"),
    [("h200", "h200"), ("h200:8", "h200:8"), ("v5e", "v5e"), ("v5e:4x4", "v5e:4x4")],
)
def test_wanted_devices(text, shown):
    assert str(read_wanted(text)) == shown


@pytest.mark.parametrize("text", ["h300", "", "h200:", "h200:0", "h200:4x4", "v5e:x", "v5e:8"])
def test_devices_that_do_not_exist(text):
    with pytest.raises(ValueError, match=r"choose of|does not say how many"):
        read_wanted(text)


def compiled_here(mesh):
    case = Case(MICRO, "inference", 8, "float32")
    lowered = programs.lower_case(case, mesh)
    return lowered, lowered.lowered.compile()


@pytest.fixture(scope="module")
def plan():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    planned, compiled = compiled_here(mesh)
    return make_plan(
        compiled, read_device("h200"), program=planned.name, devices="h200", images=planned.images
    )


def test_inference_takes_the_options_of_the_model(caplog):
    """On a CPU fused kernels say that they are left to XLA."""
    calls._say_once.cache_clear()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    case = Case(MICRO, "inference", 8, "float32", residual="bfloat16", kernels="norm")
    assert "xbf16>" in programs.lower_case(case, mesh).lowered.as_text()
    assert "The fused kernel add_norm_forward is left to XLA" in caplog.text


@pytest.mark.slow
def test_a_plan_adds_up_what_the_model_computes(plan):
    """Of 16 patches and 2 tokens, exactly; in the last block the 2 tokens alone ask."""
    spec = model_spec(MICRO)
    whole = vit_forward_flops(abstract(model_builder(MICRO))[1], spec.image_size)
    tokens, width, left_out = 18, 64, 16
    last = left_out * (1 + 1 + 8) * width**2 + 2 * left_out * tokens * width
    assert plan.total.operations == 8 * (whole - 2 * last)
    assert plan.total.launches == sum(share.launches for share in plan.classes.values())
    assert plan.memory["planned"] > plan.memory["temporary"] > 0
    assert plan.teacher == Share() and plan.collectives == []


@pytest.mark.slow
def test_plans_are_kept_and_compared(plan, tmp_path):
    path = tmp_path / "plans.json"
    saved.save(path, [plan], {"date": "2026-01-31"})
    (found,) = saved.load(path).values()
    assert found.to_json() == plan.to_json() and found.total == plan.total
    faster = replace(plan, classes=plan.classes | {"products": Share(1, 2, 3, 0.0)})
    said = change_section(faster, found, "plans.json")
    products = plan.classes["products"]
    assert f"| products | 1 | {products.launches} |" in said
    assert f"{-1e3 * products.seconds:+.2f} |" in said
    section = plan_section(plan, read_device("h200"), top=3)
    assert "Nothing crosses between devices." in section and "## " in section
    with pytest.raises(ValueError, match="is there already"):
        saved.check_new(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no file of plans"):
        saved.load(path)


def test_time_at_the_roofline_is_the_larger_of_two():
    device = read_device("h200")
    moved = Kernel("k", "fusion", 1, int(4.3e9), 0, "", frozenset(), frozenset(), ())
    assert seconds_of(moved, device) == pytest.approx(1e-3)
    computed = replace(moved, operations=int(790e9 * 3), dtype="bf16")
    assert seconds_of(computed, device) == pytest.approx(3e-3)
    assert seconds_of(replace(computed, dtype="f32"), device) == pytest.approx(6e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "h300", "--models", MICRO], "'h300' is no device"),
        (["--devices", "h200"], "Give either --models or --config"),
        (["--devices", "h200", "--models", "deit_smal"], "There is no model named 'deit_smal'"),
        (["--devices", "h200", "--models", MICRO, "--config.seed=1"], "changes a --config"),
        (["--devices", "h200", "--models", MICRO, "--against", "no.json"], "no.json"),
        (["--devices", "h200", "--models", MICRO, "--save", "no/x.json"], "is not a directory"),
    ],
)
def test_refusals_are_one_sentence(words, said, capsys):
    assert program.main(words) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_what_the_compiler_refuses_is_one_sentence(capsys, monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: No such compile option: 'nonsense'")

    monkeypatch.setattr(program, "_run", refuse)
    assert program.main(["--devices", "h200", "--models", MICRO, "--xla", "nonsense=1"]) == 2
    said = capsys.readouterr().err
    assert "No such compile option" in said and said.count("\n") == 1


@pytest.mark.parametrize("device", ["h200", "v5e:4x4"])
def test_a_missing_compiler_is_said_in_one_sentence(device, capsys, monkeypatch):
    def missing(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setattr(target.topologies, "get_topology_desc", missing)
    monkeypatch.setattr(target, "_is_installed", lambda package: False)
    assert program.main(["--devices", device, "--models", MICRO]) == 2
    said = capsys.readouterr().err
    assert "pip install 'deit_jax[plan]' (some 5 GB)" in said and said.count("\n") == 1


def test_a_topology_that_libtpu_refuses_is_not_taken_for_a_missing_libtpu(capsys, monkeypatch):
    def refuse(*_, **__):
        # As libtpu 0.0.48 says it, of a single chip.
        raise RuntimeError('Topology layout "v6e:1x1" is not divisible by the default bounds.')

    monkeypatch.setattr(target.topologies, "get_topology_desc", refuse)
    monkeypatch.setattr(target, "_is_installed", lambda package: True)
    assert program.main(["--devices", "v6e", "--models", MICRO]) == 2
    said = capsys.readouterr().err
    assert "libtpu knows no" in said and "not divisible" in said and "pip install" not in said


@pytest.mark.full
def test_the_planned_experiment_is_the_one_that_is_trained(tmp_path, monkeypatch):
    """Of the same devices, both are the same program to the letter."""
    config = reduce(get_config("small"), tmp_path)
    setup = set_up(config)
    images = len(setup.train_source)
    monkeypatch.setattr(programs, "IMAGENET_TRAIN_IMAGES", images)
    config.training.batch_size = 8
    planned = programs.lower_experiment("x", Config.of(config), "train", setup.mesh)
    batch = {name: jax.ShapeDtypeStruct((8,), jnp.int32) for name in ("label", "epoch")}
    batch |= {name: batch["label"] for name in ("index", "copy")}
    batch["image"] = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.uint8)
    trained = setup.train_step.lower(setup.abstract_state, {}, batch)
    assert planned.lowered.as_text() == trained.as_text()


@needs_cuda
@pytest.mark.slow
def test_gpus_that_are_not_here(tmp_path, capsys):
    """Eight exchange sums alone, and attention is cuDNN's: the program knows what it is for."""
    path = tmp_path / "plans.json"
    words = ["--devices", "h200:8", "--models", MICRO, "--batch-sizes", "64", "--save", str(path)]
    assert program.main(words) == 0
    assert "Nothing here was run or measured" in capsys.readouterr().out
    (plan,) = saved.load(path).values()
    assert {crossing.kind for crossing in plan.collectives} == {"all-reduce"}
    assert any("fmha" in what for _, what, _, _ in plan.largest)


@needs_cuda
@pytest.mark.full
def test_blocks_that_are_computed_again_take_no_memory_on_several_gpus(tmp_path):
    words = ["--devices", "h200:8", "--config", "configs/deit.py:tiny"]
    found = []
    for remat in ("none", "blocks"):
        path = tmp_path / f"{remat}.json"
        words_of = [*words, f"--config.training.remat={remat}", "--save", str(path)]
        assert program.main(words_of) == 0
        (plan,) = saved.load(path).values()
        found.append(plan.memory["temporary"])
    # XLA's scheduler, left to itself, hides sums behind it and keeps the results.
    assert found[1] < 0.5 * found[0]


@needs_libtpu
@pytest.mark.slow
def test_tpus_that_are_not_here(tmp_path):
    path = tmp_path / "plans.json"
    words = ["--devices", "v5e:2x2", "--models", MICRO, "--batch-sizes", "64", "--save", str(path)]
    assert program.main(words) == 0
    (plan,) = saved.load(path).values()
    assert {crossing.kind for crossing in plan.collectives} == {"all-reduce"}
    assert isinstance(plan, Plan) and plan.classes["products"].operations > 0
    assert Path(path).is_file()


@needs_libtpu
@pytest.mark.slow
def test_attention_on_tpus_writes_no_scores_in_float32():
    mesh = target.open_mesh(read_wanted("v5e"))
    rows = jax.ShapeDtypeStruct((4 * 197, 128), jnp.bfloat16, sharding=split_over_batch(mesh))

    def pulled(*given):
        return jax.vjp(lambda *x: attend(*x, 4, 2), *given[:3])[1](given[3])

    with batch_split_over(mesh):
        compiled = jax.jit(pulled).lower(*[rows] * 4).compile()
    kernels = read_kernels(read_module(compiled.as_text())).kernels
    written = {shape for kernel in kernels for shape in kernel.shapes}
    assert {shape.dtype for shape in written if shape.dimensions == (4, 2, 197, 197)} == {"bf16"}
