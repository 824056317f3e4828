"""Eight virtual CPU devices for every test, so that sharding is exercised everywhere."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Two test processes share two cores; PyTorch's threads would wait for each other in all of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import pytest
from jax.sharding import AxisType

from deit_jax.extras import declare_torchvision_operators

declare_torchvision_operators()


@pytest.fixture
def eight_devices():
    """A mesh of eight, where there are so many: not where the tests run on one accelerator."""
    if jax.device_count() < 8:
        pytest.skip("needs eight devices")
    return jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


@pytest.fixture
def quick_compilation():
    """For tests of a few steps, which take far longer to compile than to run."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
