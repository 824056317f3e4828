"""The middle of a run of several processes: a thread of process 0 that all others are linked to.

It lets them meet, agree on the step to stop after, and end together. A process that dies is noticed
because the system closes its connection, in the same moment; one whose machine has gone, because it
no longer answers (half a minute). What is sent is lines of JSON, a handful in the whole life of a
run. Nothing is authenticated, as nothing is in JAX's own coordination: use a network you trust.
"""

import contextlib
import json
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from deit_jax.scale.failure import REFUSED, Failure, cause_of, lost
from deit_jax.scale.place import Beside

# For others that fail of the same to say so, before the cause is chosen.
_GRACE_SECONDS: Final = 0.5
# For the others to have ended before process 0 does: JAX ends, with a long trace, whoever lives on.
_LEAVING_SECONDS: Final = 3.0
_LONGEST_LINE: Final = 2**16


@dataclass
class _Member:
    """A process at the other end of a connection; `index` is -1 until it has said which."""

    connection: socket.socket
    index: int = -1
    hello: dict[str, Any] = field(default_factory=dict)
    unread: bytes = b""
    step: int | None = None
    done: bool = False


class Hub:
    """Watches over the processes of a run; see `run`."""

    def __init__(
        self,
        listener: socket.socket,
        own: socket.socket,
        count: int,
        jax_address: Callable[[], str],
        seconds: float,
    ) -> None:
        """Take connections; nothing is done before `start`.

        Args:
            listener: where the other processes come to.
            own: the link of process 0 itself.
            count: processes of the run.
            jax_address: where JAX's coordination is to be, asked when all are there.
            seconds: how long to wait for all of them.
        """
        self._listener, self._count, self._jax_address = listener, count, jax_address
        self._where = "{}:{}".format(*listener.getsockname()[:2])
        self._members: dict[int, _Member] = {}
        self._failures: list[Failure] = []
        self._stopping = self._left = False
        self._seconds = seconds
        self._deadline: float | None = time.monotonic() + seconds
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(own, selectors.EVENT_READ, _Member(own))

    def start(self) -> None:
        """Watch, in a thread of its own, until this process ends."""
        threading.Thread(target=self._run, daemon=True, name="hub").start()

    def _run(self) -> None:
        try:
            while True:
                self._turn()
        finally:
            # Only an error comes here; without a hub nobody would be watched over.
            for member in self._members.values():
                member.connection.close()

    def _turn(self) -> None:
        """Take what has come, or do what is due."""
        wait = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        for key, _ in self._selector.select(wait):
            if key.data is None:
                self._accept()
            else:
                self._read(key.data)
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self._time_is_over()

    def _time_is_over(self) -> None:
        self._deadline = None
        if self._left:
            self._tell_first()
        elif self._failures:
            self._end(cause_of(self._failures))
        else:
            missing = [str(i) for i in range(self._count) if i not in self._members]
            self._end(
                _refused(
                    f"{len(self._members)} of {self._count} processes have come to {self._where} "
                    f"within {self._seconds:g} s (missing: {', '.join(missing)}); start all of "
                    "them, with the same address."
                )
            )

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            let_go_of_the_dead(connection)
            self._selector.register(connection, selectors.EVENT_READ, _Member(connection))

    def _read(self, member: _Member) -> None:
        try:
            received = member.connection.recv(_LONGEST_LINE)
        except OSError:
            received = b""
        *lines, member.unread = (member.unread + received).split(b"\n")
        if not received or len(member.unread) > _LONGEST_LINE:
            self._gone(member)
            return
        for line in lines:
            # Whoever finds the port may send anything.
            try:
                self._take(member, json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self._gone(member)
                return

    def _gone(self, member: _Member) -> None:
        self._selector.unregister(member.connection)
        member.connection.close()
        if self._members.get(member.index) is not member:
            return
        del self._members[member.index]
        if self._left:
            if set(self._members) <= {0}:
                self._tell_first()
        elif not member.done:
            hello = member.hello
            self._note(lost(member.index, hello["host"], hello["pid"]))

    def _take(self, member: _Member, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._greet(member, message["hello"])
        elif member.index < 0:
            raise ValueError("Whoever says nothing of itself is not heard.")
        elif "failed" in message:
            self._note(Failure.from_json(message["failed"]))
        elif "stop" in message and not self._stopping:
            self._stopping = True
            self._tell_all({"halt": True})
        elif "at" in message:
            member.step = int(message["at"])
            if all(other.step is not None for other in self._members.values()):
                # None has begun this step, and all of them will.
                self._tell_all({"last": 1 + max(m.step or 0 for m in self._members.values())})
        elif "done" in message:
            member.done = True
            if len(self._members) == self._count and all(m.done for m in self._members.values()):
                self._tell_all({"bye": True})

    def _greet(self, member: _Member, hello: dict[str, Any]) -> None:
        """Take a process in, or say why not; once all are there, tell each what it needs."""
        index = int(hello["index"])
        hello = {**hello, "host": str(hello["host"])[:200], "pid": int(hello["pid"])}
        who = f"process {index} on {hello['host']}"
        if not 0 <= index < self._count:
            raise ValueError("It cannot be of this run.")
        if index in self._members:
            first = self._members[index].hello
            problem = (
                f"there are two processes {index}, on {first['host']} (process {first['pid']}) and "
                f"on {hello['host']} (process {hello['pid']}); start each with a number of its own."
            )
            self._end(_refused(problem), member)
            return
        before = next(iter(self._members.values()), None)
        member.index, member.hello = index, hello
        self._members[index] = member
        if before and (problem := _difference(who, hello, before)):
            self._end(_refused(problem))
        if len(self._members) == self._count and not (self._failures or self._left):
            self._welcome()

    def _welcome(self) -> None:
        self._deadline = None
        self._selector.unregister(self._listener)
        self._listener.close()
        address = self._jax_address()
        for index, member in self._members.items():
            beside = _beside({i: m.hello for i, m in self._members.items()}, index)
            first = [self._members[0].hello[name] for name in ("host", "pid")]
            place = {"beside": [beside.index, beside.count], "first": first}
            _send(member, {"welcome": {"jax": address, **place}})

    def _note(self, failure: Failure) -> None:
        if not self._failures and not self._left:
            self._deadline = time.monotonic() + _GRACE_SECONDS
        self._failures.append(failure)
        # Nobody is left to fail of the same.
        if not self._left and {f.index for f in self._failures} >= set(self._members):
            self._end(cause_of(self._failures))

    def _end(self, cause: Failure, beside: _Member | None = None) -> None:
        """Tell all to leave, process 0 last, which ends the hub and JAX's coordination."""
        if self._left:
            return
        self._left, self._cause = True, cause
        self._deadline = time.monotonic() + _LEAVING_SECONDS
        for member in [*self._members.values(), *([beside] if beside else [])]:
            if member.index != 0:
                _send(member, {"leave": cause.to_json()})
        if set(self._members) <= {0}:
            self._tell_first()

    def _tell_first(self) -> None:
        if first := self._members.get(0):
            _send(first, {"leave": self._cause.to_json()})

    def _tell_all(self, message: dict[str, Any]) -> None:
        # Process 0 last: where all say goodbye, its end is that of the hub.
        for member in sorted(self._members.values(), key=lambda m: -m.index):
            _send(member, message)


def let_go_of_the_dead(connection: socket.socket) -> None:
    """Close a connection within half a minute of the other machine's silent end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 30_000),
    ):
        if hasattr(socket, name) and connection.family != getattr(socket, "AF_UNIX", None):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _refused(problem: str) -> Failure:
    """Return what process 0 says where the user has to do something."""
    return Failure(REFUSED, 2, f"error: {problem}", 0)


def _send(member: _Member, message: dict[str, Any]) -> None:
    # A connection that cannot be written to is read to its end in a moment.
    with contextlib.suppress(OSError):
        member.connection.sendall(json.dumps(message).encode() + b"\n")


def _beside(hellos: dict[int, dict[str, Any]], index: int) -> Beside:
    """Return which of the processes on its machine one is; alone if they see other devices."""
    host = hellos[index]["host"]
    here = sorted(i for i, hello in hellos.items() if hello["host"] == host)
    if len({str(hellos[i].get("devices")) for i in here}) > 1:
        return Beside(0, 1)
    return Beside(here.index(index), len(here))


def _difference(who: str, hello: dict[str, Any], other: _Member) -> str:
    """Say in what a process is not like another of its run; "" if it is."""
    for name, does in (("count", "counts"), ("versions", "runs"), ("words", "was given")):
        theirs, ours = hello.get(name), other.hello.get(name)
        if theirs != ours:
            return (
                f"{who} {does} {_words(theirs)}, and process {other.index} {_words(ours)}; "
                "start all with the same."
            )
    return ""


def _words(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
