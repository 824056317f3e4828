"""One start of a small training run in one process or several, of which some are to be killed."""

import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.interrupted_run import Start, steps_taken

# Of what must be over at once, killed or not; longer is a hang.
_PATIENCE_SECONDS = 60.0
_JOIN_SECONDS = 20.0
_POLL_SECONDS = 0.02
# A start that has not come to its step by then hangs; what is killed is told.
_LONGEST_SECONDS = 600.0


class Together:
    """One start of a run in several processes on this machine."""

    def __init__(
        self, workdir: Path, processes: int, workers: int, flags: Sequence[str] = (), **env: str
    ) -> None:
        """Start all of them; arguments as of `Start`."""
        self.workdir = workdir
        self.begin = time.monotonic()
        self.members = [
            Start(workdir, workers, [*flags, *meet], **env, **variables)
            for meet, variables in _how_to_meet(processes)
        ]

    def end_by(self, moment: float) -> bool:
        """Wait for all to end; return whether they had before so many seconds."""
        return all(
            not member.run(max(0.0, self.begin + moment - time.monotonic()))[0]
            for member in self.members
        )

    def end_or_reach(self, step: int) -> bool:
        """Wait until a step is logged; return whether all have ended before."""
        while steps_taken(self.workdir) < step and self.seconds < _LONGEST_SECONDS:
            if self.end_by(self.seconds + _POLL_SECONDS):
                return True
        return False

    def kill(self, which: Sequence[int]) -> float:
        """Kill some; return the seconds until the others had ended too."""
        begin = time.monotonic()
        for index in which:
            self.members[index].send(signal.SIGKILL)
        for member in self.members:
            member.collect(_PATIENCE_SECONDS)
        return max(member.ended for member in self.members) - begin

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self.begin


def _how_to_meet(processes: int) -> list[tuple[list[str], dict[str, str]]]:
    """Return flags and variables for each process."""
    if processes == 1:
        return [([], {})]
    address = free_address()
    return [
        (
            [f"--join_seconds={_JOIN_SECONDS:g}"],
            {
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_NUM_PROCESSES": str(processes),
                "JAX_PROCESS_ID": str(index),
            },
        )
        for index in range(processes)
    ]


def free_address() -> str:
    """Return an address of this machine with a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
