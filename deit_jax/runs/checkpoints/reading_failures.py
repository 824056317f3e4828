"""Why a checkpoint cannot be read: only damage is called damage, and all processes agree on it."""

import errno
import re
from pathlib import Path

from deit_jax.devices import check_devices
from deit_jax.runs.checkpoints.manifest import DamagedCheckpoint
from deit_jax.runs.processes import all_processes

# What the operating system refuses though the file is sound.
_REFUSALS = {
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.EINTR,
}
# The same in the words of TensorStore and XLA, which raise ValueError and RuntimeError.
_WORDS = re.compile(
    r"PERMISSION_DENIED|RESOURCE_EXHAUSTED|Permission denied|Too many open files|"
    r"Cannot allocate memory|[Oo]ut of memory|UNAVAILABLE|DEADLINE_EXCEEDED"
)


def refuse_circumstances(path: Path, error: BaseException) -> None:
    """Do nothing if an error can be one of the checkpoint itself.

    Args:
        path: of the checkpoint, for the message.
        error: that was raised while it was read.

    Raises:
        ValueError: JAX has no devices to read it onto.
        OSError: permission, memory or the like are missing; says what.
    """
    check_devices()
    cause: BaseException | None = error
    while cause is not None:
        refused = isinstance(cause, OSError) and cause.errno in _REFUSALS
        if refused or isinstance(cause, MemoryError) or _WORDS.search(str(cause)):
            raise OSError(
                f"Checkpoint {path} cannot be read, which is no damage: {error_in_short(cause)}; "
                "see to that and give the same command again."
            ) from error
        cause = cause.__cause__ or cause.__context__


def fail_together(problem: Exception | None, elsewhere: str) -> None:
    """Fail on all processes if one has failed; all of them must call it, at the same point.

    What keeps one from reading goes before damage, so that nothing is taken for damaged that
    another process could not open.

    Args:
        problem: of this process: `OSError`, `DamagedCheckpoint`, or None.
        elsewhere: what is said where another has failed.
    """
    readable = all_processes(not isinstance(problem, OSError))
    sound = all_processes(problem is None)
    if not readable:
        raise problem if isinstance(problem, OSError) else OSError(elsewhere)
    if not sound:
        raise problem or DamagedCheckpoint(elsewhere)


def error_in_short(error: BaseException) -> str:
    """Return the part of an error message that fits into a sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
    # The file system's own words come last, after several long paths.
    return text if len(text) <= 240 else f"{text[:100]} ... {text[-130:]}"
