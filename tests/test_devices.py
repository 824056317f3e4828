"""What XLA is told on a GPU; that it does what it says there, no test without one can show."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from PIL import Image

import deit_jax
from configs.digits import get_config
from deit_jax import devices
from deit_jax.devices import check_devices, out_of_memory
from deit_jax.models import cudnn_attention, products
from deit_jax.runs.checkpoints.reading_failures import refuse_circumstances
from deit_jax.training import programs, setup
from deit_jax.training.loop import train


@pytest.mark.parametrize(
    ("kind", "expected"), [("NVIDIA H200", "gpu"), ("TPU v5 lite", "tpu"), ("cpu", "cpu")]
)
def test_what_is_traced_knows_the_device_that_it_is_for(kind, expected):
    """A bfloat16 product for a GPU or TPU rounds its sums itself; one for a CPU cannot."""
    device = jax.sharding.AbstractDevice(device_kind=kind, num_cores=1, platform=expected)
    mesh = jax.sharding.AbstractMesh((1,), ("data",), abstract_device=device)
    x = jax.ShapeDtypeStruct((8, 8), jnp.bfloat16)

    def traced(x):
        with jax.sharding.use_abstract_mesh(mesh):
            assert devices.platform() == expected
            assert cudnn_attention.takes(jnp.bfloat16, 64) == (expected == "gpu")
            return products.product(x, x, out_dtype=jnp.bfloat16)

    wanted = jnp.float32 if expected == "cpu" else jnp.bfloat16
    assert jax.eval_shape(traced, x).dtype == wanted
    assert devices.platform() == jax.default_backend()


def test_cpus_are_told_nothing():
    assert devices.compiler_options("cpu", kernel_choices=Path("x")) is None


def test_options_have_names_that_the_compiler_knows(tmp_path):
    options = devices.compiler_options("gpu", kernel_choices=tmp_path)
    options |= devices.compiler_options("gpu", remat=True)
    assert len(options) == 3 + len(devices.compiler_options("gpu"))
    doubled = jax.jit(lambda x: 2 * x, compiler_options=options)
    assert doubled(jnp.ones(())) == 2
    with pytest.raises(Exception, match="xla_gpu_no_such_option"):
        jax.jit(lambda x: 2 * x, compiler_options={"xla_gpu_no_such_option": True})(jnp.ones(()))


@pytest.fixture
def asked(monkeypatch):
    """The forms of attention that students are built with."""
    forms = []
    build = programs.model_builder

    def recorded(*args, **options):
        forms.append(options["attention"])
        return build(*args, **options)

    monkeypatch.setattr(programs, "model_builder", recorded)
    return forms


@pytest.mark.parametrize(("repeatable", "form"), [(False, "auto"), (True, "recompute")])
def test_a_repeatable_student_does_without_cudnn(asked, repeatable, form):
    config = get_config("none")
    config.training.repeatable = repeatable
    setup.set_up(config)
    assert asked == [form]


@pytest.mark.full
def test_a_repeatable_run_keeps_its_choices(quick_compilation, asked, tmp_path, monkeypatch):
    """As on a GPU, but that a CPU computes."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(programs, "platform_of", lambda mesh: "gpu")
    config = get_config("none")
    config.model.name = "deit_micro_patch4_16"
    config.schedule.update(epochs=1.0, warmup_epochs=0.5)
    config.mix.group = 0
    config.data.update(train_images=48, threads=1)
    config.training.update(batch_size=24, repeatable=True)
    result = train(config, str(tmp_path / "run"))
    assert result["skipped_steps"] == 0
    assert set(asked) == {"recompute"}
    assert (tmp_path / "run" / "kernel_choices").is_dir()


def test_devices_that_cannot_be_started_are_said_in_one_sentence(monkeypatch):
    def fail():
        # As JAX does for a kind whose plug-in is not installed.
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ValueError, match=r"^JAX cannot start the devices of JAX_PLATFORMS=cuda \("):
        check_devices()
    # A checkpoint that was to be read onto them is not damaged.
    with pytest.raises(ValueError, match="JAX cannot start"):
        refuse_circumstances("runs/x", ValueError("anything"))


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError("Unable to allocate 2 GiB"),
        ValueError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 99 bytes"),
    ],
)
def test_only_damage_is_called_damage(error):
    with pytest.raises(OSError, match="which is no damage"):
        try:
            raise ValueError("Orbax says something else") from error
        except ValueError as outer:
            refuse_circumstances("runs/x", outer)
    refuse_circumstances("runs/x", ValueError("DATA_LOSS: checksum does not match"))
    refuse_circumstances("runs/x", FileNotFoundError(errno.ENOENT, "No such file"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [["train.py", "--config=configs/digits.py:none"], ["-m", "deit_jax"]]
)
def test_programs_say_so_and_leave(program, tmp_path):
    rest = [f"--workdir={tmp_path / 'run'}"]
    if program[0] == "-m":
        deit_jax.save_weights(deit_jax.create_model("deit_micro_patch4_16"), tmp_path / "w")
        Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
        rest = ["predict", "--weights", str(tmp_path / "w"), str(tmp_path / "x.png")]
    environment = os.environ | {"JAX_PLATFORMS": "nonsense"}
    found = subprocess.run(
        [sys.executable, *program, *rest],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.startswith("error: JAX cannot start the devices of JAX_PLATFORMS=nonsense")
    assert found.stderr.count("\n") == 1 and not (tmp_path / "run").exists()


def test_too_little_memory_is_said_with_what_to_change():
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\nBufferAssignment:")
    said = out_of_memory(error)
    assert "\n" not in said and "allocating 5 bytes" in said and "training.micro_batches" in said
