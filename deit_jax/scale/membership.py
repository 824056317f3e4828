"""A process as a member of its run: it joins before anything can fail, and does not end alone.

What the user has to know is said once, by process 0, and the exit code is the same in all.
"""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

from deit_jax.runs.interruption import Interruption
from deit_jax.scale.detection import Given, find_place
from deit_jax.scale.failure import DEVICE, ERROR, Failure
from deit_jax.scale.link import Link, meet
from deit_jax.scale.place import share_of_gpus

JOIN_SECONDS: Final = 300.0
"""How long processes wait for each other at the start."""

# Only a process that is frozen is noticed by JAX before it is by the link.
_HEARTBEAT_SECONDS: Final = 100

_link: Link | None = None


class Together(SystemExit):
    """The end of this process at a point that all have agreed on, with the same exit code."""


@contextlib.contextmanager
def joined(words: Sequence[str], interruption: Interruption | None) -> Iterator[None]:
    """Be one of the processes that flags or a scheduler's variables tell of, or the only one.

    Args:
        words: of the command line.
        interruption: what takes the signals of this process.
    """
    global _link
    try:
        given, seconds = _read_flags(words)
        place = find_place(os.environ, given)
        if place is not None:
            _link = meet(place, _same_words(words), seconds)
    except ValueError as error:
        leave(2, f"error: {error}")
    if _link is None:
        yield
        return
    if interruption:
        interruption.agree_with(_link)
    try:
        yield
    except SystemExit as end:
        if end.code and not isinstance(end, Together):
            _link.leave(end.code if isinstance(end.code, int) else 1, f"error: {end.code}")
        _finish(_link)
        raise
    except BaseException as error:
        _fail(_link, error)
    _finish(_link)


def leave(code: int, text: str) -> NoReturn:
    """End the process, and the others of its run, with lines for the user."""
    if _link is not None:
        _link.leave(code, text)
    print(text, file=sys.stderr)
    sys.exit(code)


def connect_devices() -> None:
    """Let JAX see the devices of all processes of the run; before it starts its own.

    Raises:
        ValueError: this machine's GPUs do not divide among its processes.
    """
    if _link is None:
        return
    import jax

    # A signal is for the training loop, where all agree on the step (`Link.begin`).
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        _link.jax_address,
        _link.place.count,
        _link.place.index,
        local_device_ids=share_of_gpus(_link.beside, os.environ),
        cluster_detection_method="deactivate",
        # Where its part of process 0 listens: at the address given, at no other.
        coordinator_bind_address=_link.jax_address,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
    )


def is_first() -> bool:
    """Return whether this process speaks for its run; without starting JAX."""
    return _link is None or _link.place.index == 0


def _read_flags(words: Sequence[str]) -> tuple[Given, float]:
    """Read the flags that say which process this is, before any other flag is looked at.

    Raises:
        ValueError: their values cannot be.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--coordinator", "-coordinator", default="")
    for name in ("processes", "process"):
        parser.add_argument(f"--{name}", f"-{name}", type=int)
    parser.add_argument("--join_seconds", "-join_seconds", type=float, default=JOIN_SECONDS)
    try:
        found, _ = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise ValueError(f"{error}.") from error
    return Given(found.coordinator, found.processes, found.process), found.join_seconds


def _same_words(words: Sequence[str]) -> list[str]:
    """Return the words that all processes of a run are given alike."""
    same, own_value = [], False
    for word in words:
        name, equals, _ = word.partition("=")
        own = name in ("--process", "-process")
        if not own and not own_value:
            same.append(word)
        own_value = own and not equals
    return same


def _finish(link: Link) -> None:
    """End as all do: wait for the others, so that none takes what another still needs."""
    if "jax" in sys.modules:
        import jax

        jax.distributed.shutdown()
    link.finish()


def _fail(link: Link, error: BaseException) -> NoReturn:
    """End all processes for something unforeseen in this one."""
    number = link.place.index
    kind = DEVICE if type(error).__name__ == "JaxRuntimeError" else ERROR
    first = (str(error).strip().splitlines() or [""])[0][:300]
    text = f"error: {type(error).__name__}: {first} (traceback above, of process {number})"
    link.fail(Failure(kind, 1, text), detail="".join(traceback.format_exception(error)))
