"""Why a process of a run ends before the others, and which of several reasons is the cause."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

LOST_CODE: Final = 4
"""Exit code of a run that has lost one of its processes: the same command goes on."""

# From what causes others to what others cause: a process whose peer is gone fails in whatever it
# was doing with it.
LOST, REFUSED, ERROR, DEVICE = KINDS = ("lost", "refused", "error", "device")
_MOST_CHARACTERS: Final = 8000


@dataclass(frozen=True)
class Failure:
    """What one process says of its end, or what is seen of it.

    Attributes:
        kind: "lost" ended without a word, "refused" said what the user has to do, "error" raised
            something unforeseen, "device" the same in a program on devices, which all share.
        code: exit code that the whole run gets.
        text: lines for the user.
        index: of the process; -1 before it is known.
        host: its machine.
    """

    kind: str
    code: int
    text: str
    index: int = -1
    host: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, a text of unusual length cut."""
        return {**asdict(self), "text": self.text[:_MOST_CHARACTERS]}

    @classmethod
    def from_json(cls, content: Any) -> "Failure":
        """Read it.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        failure = cls(
            str(content["kind"]),
            int(content["code"]),
            str(content["text"])[:_MOST_CHARACTERS],
            int(content["index"]),
            str(content["host"]),
        )
        if failure.kind not in KINDS:
            raise ValueError(f"There is no failure {failure.kind!r}.")
        return failure


def lost(index: int, host: str, pid: int) -> Failure:
    """Return what is said of a process that has ended without a word."""
    return Failure(
        LOST,
        LOST_CODE,
        f"error: process {index} (process {pid} on {host}) has ended without a word: killed, out "
        "of memory, or its machine is gone. The same command goes on from the last checkpoint.",
        index,
        host,
    )


def cause_of(failures: Sequence[Failure]) -> Failure:
    """Return the failure that has most likely led to the others, as it is told to the user.

    Args:
        failures: in the order in which they came, at least one.
    """
    cause = min(failures, key=lambda failure: KINDS.index(failure.kind))
    # What the first process says too is not the other's alone.
    own = next((f for f in failures if f.index == 0 and f.text == cause.text), None)
    if own is not None:
        return own
    if cause.kind == LOST or cause.index == 0:
        return cause
    text = f"process {cause.index} on {cause.host}: {cause.text}"
    return Failure(cause.kind, cause.code, text, cause.index, cause.host)
