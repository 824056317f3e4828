import jaxtyping
import pytest


@pytest.fixture(scope="module", autouse=True)
def symbolic_sizes():
    """Leave shapes unchecked: sides of any number of elements are no numbers to check."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
