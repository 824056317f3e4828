"""What Orbax counts while it saves, which costs memory that is never given back.

Around each item it writes or reads, Orbax 0.12 asks TensorStore for all counters of bytes, to log a
throughput and a compression. TensorStore (0.1.86) never frees part of each answer: a run's memory
grew with every save.
"""


def count_no_bytes() -> None:
    """Let Orbax find that nothing was counted: it then says nothing, and asks TensorStore nothing.

    Orbax has no setting for it.
    """
    try:
        from orbax.checkpoint._src.serialization import tensorstore_utils
    except ImportError:
        # A version that works in another way.
        return
    if hasattr(tensorstore_utils, "get_tensorstore_raw_bytes"):
        tensorstore_utils.get_tensorstore_raw_bytes = _no_bytes


def _no_bytes(*_: object, **__: object) -> int:
    return 0
