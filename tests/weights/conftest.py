"""What tests of harmful files share, and models to load weights into."""

import time
import tracemalloc

import pytest

from deit_jax.weights.formats.any import read_file
from tests.weights.formats.watched import watched


@pytest.fixture
def refuse(tmp_path):
    """Return a function that reads bytes as a file, checks what happens and gives the sentence."""

    def read(content, name="weights.pth"):
        path = tmp_path / name
        path.write_bytes(content)
        started = time.thread_time()
        tracemalloc.start()
        with watched() as events, pytest.raises(ValueError) as caught:
            read_file(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert events == []
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        assert len(message) < len(str(path)) + 400
        # Neither takes long nor fills the memory; of the processor, as machines are busy.
        assert time.thread_time() - started < 20
        assert peak < 3 * len(content) + 150 * 2**20
        return message.removeprefix(f"{path} ")

    # The first refusal imports what later ones have.
    read(b"nothing")
    return read


@pytest.fixture(scope="session")
def models():
    """One model of each kind, by name; tests load into it what they need."""
    import deit_jax
    from tests.weights.small_models import DISTILLED, PLAIN

    return {name: deit_jax.create_model(name) for name in (PLAIN, DISTILLED)}
