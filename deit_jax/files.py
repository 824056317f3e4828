"""Files that are written whole or not at all, and errors of the system that say which file.

A file is written beside its place under a name that begins with a dot and ends in `.partial`,
forced to the disk, and only then given its name. So whatever happens, under the final name there is
the old file, the new one, or none. After a crash a `.partial` file may remain; nothing reads it.
"""

import contextlib
import errno
import io
import json
import math
import os
import re
import secrets
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from deit_jax.messages import in_short

_PARTIAL: Final = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.partial")
# As runs named them once.
_OLD_PARTIALS: Final = ("config.json.tmp", "result.json.tmp", "metrics.jsonl.tmp")


@contextlib.contextmanager
def written_whole(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; on success that file gets its name, else it goes.

    Args:
        path: of the file; its directory must exist.
        overwrite: whether a file of that name may be replaced.

    Raises:
        FileExistsError: there is one, and `overwrite` is off.
        FileNotFoundError: the directory does not exist.
        OSError: it cannot be written, of a full disk for instance; with the final path.
        ValueError: the path is a directory.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a directory; name a file to write to.")
    require_parent(path)
    if not overwrite:
        _refuse_existing(path)
    partial = partial_beside(path)
    try:
        with naming(path, instead_of=partial):
            partial.touch(exist_ok=False)
            mode = partial.stat().st_mode
            yield partial
            # A library may make a file of its own there, for the eyes of the owner only.
            partial.chmod(mode)
            _force_to_disk(partial)
            if overwrite:
                os.replace(partial, path)
            else:
                _rename_to_free_name(partial, path)
            _force_to_disk(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path, *, instead_of: Path | None = None) -> Iterator[None]:
    """Put a path into the system's errors that have none, as those of writing to an open file.

    Args:
        path: what is written or read inside.
        instead_of: a path that means nothing to the user and is replaced as well.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, instead_of and str(instead_of)):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def printable(text: str) -> str:
    """Return a text, such as a path, with a replacement for each byte that is no UTF-8."""
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "replace")


def print_any_name() -> None:
    """Let what this terminal cannot show, in names of files, appear as escapes; no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def require_utf8(path: Path) -> None:
    """Refuse a path that this process and libraries written in C++ take for different ones.

    Python gives the system the bytes that a name has in the encoding of the locale, TensorStore
    those it has in UTF-8, or none at all.

    Raises:
        ValueError: saying what to do.
    """
    encoding = sys.getfilesystemencoding()
    with contextlib.suppress(UnicodeEncodeError):
        if os.fsencode(path) == str(path).encode("utf-8"):
            return
    remedy = (
        "choose a directory whose name is UTF-8"
        if encoding == "utf-8"
        else f"this locale reads names as {encoding}: set LC_ALL=C.UTF-8 or PYTHONUTF8=1, or "
        "choose a directory whose name is ASCII"
    )
    raise ValueError(
        f"Checkpoints cannot lie in {printable(str(path))}, because TensorStore knows names in "
        f"UTF-8 alone; {remedy}."
    )


def sentence(error: Exception) -> str:
    """Write an error raised by the house, or by the operating system, as one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    return " ".join(str(error).split())


def require_writable(directory: Path) -> None:
    """Make an entry in a directory and remove it.

    Raises:
        OSError: it cannot be written to; no permission bit says so on all file systems.
    """
    probe = directory / f".probe-{secrets.token_hex(4)}"
    probe.mkdir()
    probe.rmdir()


def remove_partials(directory: Path) -> None:
    """Delete what killed writers left in a directory that nobody else writes to now."""
    for path in directory.iterdir():
        if is_partial(path.name):
            path.unlink(missing_ok=True)


def require_parent(path: Path) -> None:
    """Raise FileNotFoundError if the directory that a path is in does not exist."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: there is no directory {path.parent}.")


def partial_beside(path: Path) -> Path:
    """Return the temporary path of what is being written, which nobody else has."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def is_partial(name: str) -> bool:
    """Return whether a file of that name was begun by `written_whole` and never finished."""
    return _PARTIAL.fullmatch(name) is not None or name in _OLD_PARTIALS


def write_json(path: Path, content: Any, *, indent: int | None = 2, overwrite: bool = True) -> None:
    """Write a file of strict JSON, in UTF-8, completely or not at all.

    Args:
        path: of the file; its directory must exist.
        content: see `strict_json`.
        indent: columns for each level; None for one line.
        overwrite: whether a file of that name may be replaced.

    Raises:
        TypeError: the content has something that JSON has not.
        FileExistsError, FileNotFoundError, OSError: as `written_whole`.
    """
    text = strict_json(content, indent) + "\n"
    with written_whole(path, overwrite=overwrite) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path, most_bytes: int = 2**28) -> Any:
    """Read a file of JSON.

    Raises:
        ValueError: it is damaged, or larger than anything that should be in it; names it.
        OSError: it is not there or cannot be read.
    """
    if path.stat().st_size > most_bytes:
        raise ValueError(f"{path} is far too large for what it should hold.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {in_short(error)}.") from error


def write_text(path: Path, text: str) -> None:
    """Write a text for readers, in UTF-8, completely or not at all; see `printable`."""
    with written_whole(path) as partial:
        partial.write_text(printable(text), encoding="utf-8")


def strict_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that any parser reads: numbers that are not finite become null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    """Reduce configurations, tuples, paths and array scalars to what JSON has."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists already; choose another name or allow overwriting (--overwrite)."
        )


def _rename_to_free_name(partial: Path, path: Path) -> None:
    """Rename without replacing what someone else has written there in the meantime."""
    try:
        os.link(partial, path)
    except FileExistsError:
        _refuse_existing(path)
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links has no way to do both in one.
        _refuse_existing(path)
        os.replace(partial, path)


def _force_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a directory, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some network file systems cannot do it for a directory.
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
