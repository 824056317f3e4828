"""What all tests share: eight virtual CPU devices, kept programs, checked shapes, and `--quick`."""

import gc
import importlib.abc
import importlib.metadata
import os
import re
import sys
import tempfile
import time

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Images of containers often forbid to keep bytecode; then every process would compile all modules
# anew, which takes as long as importing them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Two test processes share two cores; PyTorch's threads would wait for each other in all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most of a test's time is compilation. So programs are kept, for all processes of a test session
# and for the next one, and are compiled fast rather than to be fast. `make test-full` compiles them
# as users do, by setting the last two variables itself.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", f"{tempfile.gettempdir()}/deit_jax-test-cache-{os.getuid()}"
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Later versions have no such flag. The older way of compiling takes a third of the time, and
    # one piece of code a fifth less than the 32 that are compiled side by side.
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ.setdefault("XLA_FLAGS", flags)

import jaxtyping
import pytest

from tests import shapes

sys.dont_write_bytecode = False
shapes.install()

ORACLES = {"timm", "torch", "torchvision", "transformers"}
# What a file says at its top where none of its tests is quick: importing it would take longer than
# the tests of many others.
NOT_QUICK = re.compile(
    rf"^((import|from) ({'|'.join(sorted(ORACLES))})\b"
    r"|pytestmark = (\[[^]]*)?pytest\.mark\.(slow|full)\b)",
    re.MULTILINE,
)
# Twenty times what a quick test takes, so that a busy machine fails none.
QUICK_CPU_SECONDS = 10.0


def pytest_addoption(parser):
    parser.addoption(
        "--quick",
        action="store_true",
        help="skip what imports PyTorch or an oracle on top of it, or is marked slow or full",
    )


def pytest_configure(config):
    sys.meta_path.insert(0, _NoOracles() if config.getoption("--quick") else _Torchvision())


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--quick") and collection_path.suffix == ".py":
        return bool(NOT_QUICK.search(collection_path.read_text(encoding="utf-8"))) or None
    return None


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Keep what is imported and collected out of the garbage collections to come.

    They would go through millions of objects again and again, a tenth of the time of quick tests.
    """
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def pytest_collection_modifyitems(config, items):
    if config.getoption("--quick"):
        heavy = [i for i in items if i.get_closest_marker("slow") or i.get_closest_marker("full")]
        config.hook.pytest_deselected(items=heavy)
        items[:] = [item for item in items if item not in heavy]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Refuse a slow test among the quick ones."""
    start = time.process_time()
    result = yield
    seconds = time.process_time() - start
    if item.config.getoption("--quick") and seconds > QUICK_CPU_SECONDS:
        pytest.fail(f"took {seconds:.0f} CPU seconds; mark it slow, or make it quick")
    return result


class _Torchvision(importlib.abc.MetaPathFinder):
    """Makes it importable, with PyTorch, when somebody wants it: that takes seconds."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from deit_jax.extras import declare_torchvision_operators

            declare_torchvision_operators()


class _NoOracles(importlib.abc.MetaPathFinder):
    """Skips the test, or the whole file of tests, that imports an oracle."""

    def find_spec(self, name, path=None, target=None):
        if name in ORACLES:
            pytest.skip(f"needs {name}", allow_module_level=True)


@pytest.fixture
def eight_devices():
    """A mesh of eight, where there are so many: not where the tests run on one accelerator."""
    import jax
    from jax.sharding import AxisType

    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture
def on_devices(monkeypatch):
    """Let the runs that follow be of so many devices: at first of one, for on eight virtual ones
    they take more than twice as long."""

    def use(count):
        monkeypatch.setattr("jax.device_count", lambda *_: count)

    use(1)
    return use


@pytest.fixture(scope="session")
def programs():
    return {}


@pytest.fixture
def programs_made_once(monkeypatch, programs):
    """Let the runs of all tests of a process share what is compiled for them."""
    from tests.made_once import make_once

    make_once(monkeypatch, programs)


def _compile_fast(fast=os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"):
    # Not above: the process that deals the tests out to others does without JAX.
    import jax

    jax.config.update("jax_disable_most_optimizations", fast)


@pytest.fixture
def quick_compilation():
    """For tests of a few steps in `make test-full`, which is all that they are compiled for."""
    _compile_fast(True)
    yield
    _compile_fast()


@pytest.fixture
def optimised_compilation():
    """For tests of bits that are the same in programs compiled as users compile them."""
    _compile_fast(False)
    yield
    _compile_fast()


@pytest.fixture
def unchecked_shapes():
    """For tests of what a function itself says to arrays of a wrong shape or type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
