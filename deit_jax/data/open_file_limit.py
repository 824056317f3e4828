"""The number of files that a process may have open, and what to do where it is too small."""

import errno
import os
from typing import Final

_TOO_MANY: Final = (errno.EMFILE, errno.ENFILE)


def are_too_many_open(error: BaseException) -> bool:
    """Return whether an error of the system, or a library that passes its words on, says so."""
    if isinstance(error, OSError) and error.errno:
        return error.errno in _TOO_MANY
    return any(os.strerror(number) in str(error) for number in _TOO_MANY)


def check_open_files(error: BaseException) -> None:
    """Raise advice in place of an error that says that too many files are open.

    That is nothing about the file that could not be opened, so it must not count as damage.

    Raises:
        OSError: one sentence; it has neither number nor file name, so that it is shown as it is.
    """
    if are_too_many_open(error):
        raise OSError(open_files_advice()) from error


def open_files_advice() -> str:
    """Say what can be done about it."""
    return (
        f"Too many open files: this process may have {_limit()}; allow more (ulimit -n 65536), or "
        "use fewer workers and threads."
    )


def _limit() -> str:
    try:
        import resource
    except ModuleNotFoundError:
        return "no more"
    return f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}"
