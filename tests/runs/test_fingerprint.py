import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from deit_jax.runs.fingerprint import fingerprints, named_leaves

TYPES = (np.float32, ml_dtypes.bfloat16, np.float16, np.int32, np.uint8, np.int8)


def fingerprint(array):
    return fingerprints({"x": array})["x"]


def draw(dtype, shape, seed=0):
    """Random bit patterns, NaN and infinity included."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)
    return bits.view(dtype).reshape(shape)


def flip(array, bit):
    """A copy with one bit of its memory inverted."""
    memory = bytearray(array.tobytes())
    memory[bit // 8] ^= 1 << bit % 8
    return np.frombuffer(bytes(memory), array.dtype).reshape(array.shape)


def brute_force(array):
    """The definition once more, element by element with Python's unbounded integers."""

    def scramble(word):
        word = (word ^ word >> 16) * 0x85EBCA6B % 2**32
        word = (word ^ word >> 13) * 0xC2B2AE35 % 2**32
        return word ^ word >> 16

    words = array.reshape(-1).view(f"<u{array.itemsize}").tolist()
    first = second = 0
    for position, word in enumerate(words):
        place = scramble((position + 0x9E3779B9) % 2**32)
        first += word * (place | 1)
        second += scramble(word ^ place)
    return f"{first % 2**32:08x}{second % 2**32:08x}"


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (2, 1, 3, 4)])
def test_equals_its_definition(dtype, shape):
    array = draw(dtype, shape)
    assert fingerprint(array) == brute_force(array)
    assert fingerprint(jnp.asarray(array)) == brute_force(array)


def test_is_the_same_in_every_version():
    # Checkpoints on disk hold these numbers: a change would make all of them look damaged.
    assert fingerprint(np.arange(6, dtype=np.float32).reshape(2, 3)) == "7c6000000193f9b3"


@pytest.mark.parametrize("dtype", TYPES)
def test_every_single_flipped_bit_changes_it(dtype):
    array = draw(dtype, (3, 5))
    original = fingerprint(array)
    for bit in range(array.nbytes * 8):
        changed = fingerprint(flip(array, bit))
        # Each half alone must notice.
        assert changed[:8] != original[:8]
        assert changed[8:] != original[8:]


def test_flipped_bits_of_a_larger_array_change_it():
    array = draw(np.float32, (64, 129))
    original = fingerprint(array)
    for bit in np.random.default_rng(1).integers(0, array.nbytes * 8, 200):
        assert fingerprint(flip(array, bit)) != original


def test_order_counts():
    array = draw(np.float32, (4, 6))
    for other in (array[::-1], array[:, ::-1], array.T.reshape(4, 6), np.roll(array, 1)):
        assert fingerprint(np.ascontiguousarray(other)) != fingerprint(array)


@pytest.mark.parametrize(
    "spec",
    [
        PartitionSpec(),
        PartitionSpec("a"),
        PartitionSpec(None, "b"),
        PartitionSpec("b", "a"),
        PartitionSpec(("a", "b")),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_is_the_same_on_one_and_eight_devices(spec, dtype):
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    array = draw(dtype, (16, 24, 3))
    sharded = jax.device_put(array, NamedSharding(mesh, spec))
    assert len(sharded.sharding.device_set) == 8
    assert fingerprint(sharded) == fingerprint(jax.device_put(array, jax.devices()[0]))


def test_booleans_and_typed_keys_count():
    booleans = np.array([True, False, True])
    assert fingerprint(booleans) != fingerprint(~booleans)
    assert fingerprint(jax.random.key(0)) == fingerprint(jax.random.key_data(jax.random.key(0)))
    assert fingerprint(jax.random.key(0)) != fingerprint(jax.random.key(1))


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.complex64])
def test_refuses_types_that_jit_would_narrow(dtype):
    with pytest.raises(TypeError, match=f"a/b is {np.dtype(dtype)}"):
        fingerprints({"a": {"b": np.zeros(3, dtype)}})


def test_paths_cannot_be_ambiguous():
    with pytest.raises(ValueError, match="same path"):
        named_leaves({"a": {"b": jnp.zeros(1)}, "a/b": jnp.zeros(1)})
