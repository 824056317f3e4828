"""What one process of a run knows of the others: a connection to the hub, and what comes by it."""

import contextlib
import importlib.metadata
import json
import os
import platform
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

from deit_jax.runs.interruption import leave_at_once
from deit_jax.scale.failure import LOST, REFUSED, Failure, lost
from deit_jax.scale.hub import Hub, let_go_of_the_dead
from deit_jax.scale.place import Beside, ProcessPlace, write_address
from deit_jax.version import __version__

_RETRY_SECONDS: Final = 0.2
# For the hub to say who ends why; then a process that has failed ends anyway.
_ANSWER_SECONDS: Final = 8.0


class Link:
    """The link of this process to the others of its run; made by `meet`.

    Attributes:
        place: of this process.
        jax_address: where JAX's coordination is to be.
        beside: the processes on the same machine.
    """

    def __init__(self, place: ProcessPlace, connection: socket.socket) -> None:
        """Watch nothing yet."""
        self.place = place
        self.jax_address = ""
        self.beside = Beside(0, 1)
        self._connection, self._lines = connection, connection.makefile("rb")
        self._first = place.host, 0
        self._detail = ""
        self._ended = threading.Event()
        self._turn = threading.Condition()
        self._halted = self._asked = False
        self._step, self._last = 0, 0

    def begin(self, step: int) -> None:
        """Note that a step begins; waits while all agree on the last one, a moment."""
        with self._turn:
            self._turn.wait_for(lambda: not self._halted)
            self._step = step

    def ask_to_stop(self) -> None:
        """Ask for a step after which all stop; nothing is waited for."""
        if not self._asked:
            self._asked = True
            self._send({"stop": True})

    def stops_after(self, step: int) -> bool:
        """Return whether all processes stop after this step."""
        with self._turn:
            return 0 < self._last <= step

    def fail(self, failure: Failure, detail: str = "") -> NoReturn:
        """End this process and all the others, with the cause as the last line.

        Args:
            failure: of this process.
            detail: lines that are shown before, such as a traceback, where it is the cause.
        """
        self._detail = detail
        host = socket.gethostname()
        self._send({"failed": replace(failure, index=self.place.index, host=host).to_json()})
        # The thread that reads ends the process.
        time.sleep(_ANSWER_SECONDS)
        leave_at_once(failure.code, f"{detail}{failure.text}")

    def leave(self, code: int, text: str) -> NoReturn:
        """End all processes with lines for the user, that say what to do."""
        self.fail(Failure(REFUSED, code, text))

    def finish(self, seconds: float = 300.0) -> None:
        """Wait until all processes have come to their end, as they should."""
        self._send({"done": True})
        self._ended.wait(seconds)

    def _send(self, message: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _introduce(self, words: Sequence[str]) -> None:
        """Say who this is, wait for all others and learn what is needed.

        Raises:
            ValueError: they do not come together.
        """
        jax, python = importlib.metadata.version("jax"), platform.python_version()
        hello = {
            "index": self.place.index,
            "count": self.place.count,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "versions": f"deit_jax {__version__}, JAX {jax}, Python {python}",
            "words": list(words),
        }
        self._send({"hello": hello})
        try:
            answer = json.loads(self._lines.readline() or "null")
        except (OSError, ValueError):
            answer = None
        if isinstance(answer, dict) and "leave" in answer:
            self._leave(Failure.from_json(answer["leave"]))
        if not isinstance(answer, dict) or "welcome" not in answer:
            raise ValueError(
                f"Process 0 at {self.place.address} has ended, or something else listens there; "
                "start all processes anew, with an address that is free."
            )
        self.jax_address = str(answer["welcome"]["jax"])
        self.beside = Beside(*map(int, answer["welcome"]["beside"]))
        host, pid = answer["welcome"]["first"]
        self._first = str(host), int(pid)
        self._connection.settimeout(None)
        threading.Thread(target=self._watch, daemon=True, name="link").start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._lines:
                self._take(json.loads(line))
        if not self._ended.is_set():
            self._leave(lost(0, *self._first))

    def _take(self, message: Mapping[str, Any]) -> None:
        if "leave" in message:
            self._leave(Failure.from_json(message["leave"]))
        elif "halt" in message:
            with self._turn:
                self._halted = True
                self._send({"at": self._step})
        elif "last" in message:
            with self._turn:
                self._last, self._halted = int(message["last"]), False
                self._turn.notify_all()
        elif "bye" in message:
            self._ended.set()

    def _leave(self, cause: Failure) -> NoReturn:
        """End the process; its own detail and, in process 0 or where that is gone, the cause."""
        own = cause.index == self.place.index
        speaks = self.place.index == 0 or (cause.index == 0 and cause.kind == LOST)
        parts = [self._detail if own else "", cause.text if speaks else ""]
        leave_at_once(cause.code, "".join(parts))


def meet(place: ProcessPlace, words: Sequence[str], seconds: float) -> Link:
    """Meet the other processes of the run.

    Args:
        place: of this process.
        words: of the command line, which must be the same for all.
        seconds: how long to wait for all of them.

    Raises:
        ValueError: they do not come together; says what to do.
    """
    if place.index:
        connection = _connect(place, seconds)
    else:
        listener, host = _listen(place, seconds)
        ours, connection = socket.socketpair()
        Hub(
            listener, ours, place.count, lambda: _free_address(listener.family, host), seconds
        ).start()
    link = Link(place, connection)
    # Process 0 says itself when time is over.
    connection.settimeout(seconds + 10.0)
    link._introduce(words)
    return link


def _listen(place: ProcessPlace, seconds: float) -> tuple[socket.socket, str]:
    """Listen at the address that was given, and at no other; return that too."""
    family, where = _resolve(place, time.monotonic() + seconds)
    if place.machines > 1 and where[0].startswith("127."):
        raise ValueError(
            f"{place.host}, the machine of process 0, is {where[0]} for itself, where no other "
            "machine can reach it; give --coordinator=ADDRESS:PORT with its address in the network."
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(min(place.count, 4096))
    except OSError as error:
        listener.close()
        raise ValueError(
            f"Process 0 cannot be met at {place.address} ({error.strerror}); give --coordinator="
            "HOST:PORT with an address of its machine and a port that is free."
        ) from error
    return listener, where[0]


def _connect(place: ProcessPlace, seconds: float) -> socket.socket:
    """Connect to process 0, which may not be there yet."""
    deadline = time.monotonic() + seconds
    while True:
        family, where = _resolve(place, deadline)
        connection = socket.socket(family, socket.SOCK_STREAM)
        let_go_of_the_dead(connection)
        connection.settimeout(max(0.1, min(10.0, deadline - time.monotonic())))
        try:
            connection.connect(where)
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise ValueError(
                    f"Process 0 was not at {place.address} within {seconds:g} s "
                    f"({error.strerror or error}); start all {place.count} processes, with an "
                    "address that all can reach."
                ) from error
            time.sleep(_RETRY_SECONDS)


def _resolve(place: ProcessPlace, deadline: float) -> tuple[int, Any]:
    """Return family and socket address of process 0, whose name may not be known yet."""
    while True:
        try:
            found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
            # The same of several on all machines, if they have it.
            family, _, _, _, where = min(found, key=lambda entry: entry[0] != socket.AF_INET)
            return family, where
        except OSError as error:
            if time.monotonic() > deadline:
                raise ValueError(
                    f"The machine of process 0, {place.host}, is not known here "
                    f"({error.strerror}); give --coordinator=HOST:PORT with a name or address "
                    "that is."
                ) from error
            time.sleep(_RETRY_SECONDS)


def _free_address(family: int, host: str) -> str:
    """Return an address of this machine with a port that nobody uses now."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return write_address(host, probe.getsockname()[1])
