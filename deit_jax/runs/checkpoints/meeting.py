"""Where the processes of a run wait for each other while a checkpoint is written.

At Orbax's own barriers a process waits ten minutes for one that has failed, of a full disk for
instance. At these it does not.
"""

import contextlib
from typing import Any, Final

import jax

_POLL_MILLISECONDS: Final = 1000


class MissingPart(OSError):
    """Another process could not write its part of a checkpoint."""

    def __init__(self) -> None:
        super().__init__("another process could not write its part")


class Meeting:
    """The barriers of one save after the other; `wait` is what Orbax calls, in its threads.

    All processes come to the same ones in the same order. Entries of JAX's coordination service
    say to which each has come: one that is at another has left out a part, so it has failed.
    """

    def __init__(self, directory: str) -> None:
        """Name the entries after the directory of the checkpoints."""
        self._prefix = f"deit_jax/{directory}"
        self._name, self._before = "", ""
        self._saves = self._count = 0
        self._failed = False

    def begin(self, step: int) -> None:
        """Begin a save; the entries of the one before the last are no longer needed by anyone."""
        if jax.process_count() == 1:
            return
        if self._before and jax.process_index() == 0:
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _client().key_value_delete(self._before)
        self._saves += 1
        self._before, self._name = self._name, f"{self._prefix}/{step}-{self._saves}/"
        self._count, self._failed = 0, False

    def give_up(self) -> None:
        """Tell the others that this process has failed to write its part."""
        if jax.process_count() > 1 and not self._failed:
            self._failed = True
            # Another may have said so.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                _client().key_value_set(f"{self._name}failed", "")

    def wait(self, *, key: str, timeout_ms: int) -> None:
        """Wait until all processes have come to this point of the save.

        Raises:
            MissingPart: one has failed.
            TimeoutError: one has not come in time.
        """
        if self._failed:
            raise MissingPart
        self._count += 1
        place = f"{self._name}{self._count}"
        _client().key_value_set(f"{place}/{jax.process_index()}", key)
        for index in range(jax.process_count()):
            for _ in range(max(1, timeout_ms // _POLL_MILLISECONDS)):
                found = _read(f"{place}/{index}", _POLL_MILLISECONDS)
                failed = found is None and _read(f"{self._name}failed", 1) is not None
                if failed or found not in (None, key):
                    self.give_up()
                    raise MissingPart
                if found:
                    break
            else:
                raise TimeoutError(f"process {index} has not written its part in time")


def _read(entry: str, milliseconds: int) -> str | None:
    """Return an entry once it is there; None if it is not within this time."""
    try:
        return str(_client().blocking_key_value_get(entry, milliseconds))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error):
            return None
        raise


def _client() -> Any:
    # JAX has no public way to its coordination service; Orbax goes this one too.
    from jax._src import distributed

    return distributed.global_state.client
