"""Going back to a good checkpoint where loss or gradient have not been finite for too long.

From there training goes on with the batches that would have come next, as if those since the
checkpoint were not in the stream: no batch is seen twice, and every process finds the same. What
was done stands in the notes of the checkpoints that follow. A run that is killed before the first
of them finds nothing of it, fails at the same step, and goes back in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deit_jax.runs.checkpoints.manager import Checkpoints
from deit_jax.schema import Config
from deit_jax.training.skipped_steps import stopped_by

_NOTE = "roll_backs"


@dataclass(frozen=True)
class RollBack:
    """One of them.

    Attributes:
        failed_at: last of the steps that were not finite.
        back_to: step of the checkpoint.
    """

    failed_at: int
    back_to: int

    def __str__(self) -> str:
        return (
            f"The loss or gradient was not finite up to step {self.failed_at:,}: going back to the "
            f"checkpoint of step {self.back_to:,}, and on with the images that would have come next"
        )


class GoBack(Exception):
    """Training is to be taken up again at a checkpoint.

    Attributes:
        roll_back: which.
        carried: notes that hold from then on, whatever those of the checkpoint say.
    """

    def __init__(self, roll_back: RollBack, carried: Mapping[str, Any]) -> None:
        super().__init__(str(roll_back))
        self.roll_back, self.carried = roll_back, carried


class RollBacks:
    """Those of a run up to now.

    Attributes:
        done: in turn.
    """

    def __init__(self, notes: Mapping[str, Any]) -> None:
        """Read them from the notes of a checkpoint; there are none before the first."""
        self.done = tuple(RollBack(**one) for one in notes.get(_NOTE, ()))

    @property
    def left_out(self) -> int:
        """Batches of the stream that were read and then left out."""
        return sum(one.failed_at - one.back_to for one in self.done)

    def notes(self, *more: RollBack) -> dict[str, Any]:
        """Return what a checkpoint, or `result.json`, says of these and of more."""
        return {_NOTE: [asdict(one) for one in (*self.done, *more)]}

    def due(
        self, config: Config, checkpoints: Checkpoints, step: int, in_a_row: int
    ) -> RollBack | None:
        """Return what to do where the loss has not been finite for too many steps, else None.

        All processes ask at the same point.

        Args:
            config: of the run.
            checkpoints: of it.
            step: steps taken so far.
            in_a_row: how many of the last ones were skipped.

        Raises:
            TrainingStopped: there were too many, and it may not, or cannot, be gone back.
        """
        if in_a_row < config.training.max_skipped_steps:
            return None
        done = len(self.done)
        target = _target(checkpoints.steps(), step - in_a_row, self.done)
        if target is None:
            nothing = "No checkpoint from before them is there to go back to. Try"
            raise stopped_by(step, in_a_row, nothing)
        if done >= config.training.roll_backs:
            after = f" {done} time(s) it was gone back before." if done else ""
            raise stopped_by(
                step,
                in_a_row,
                f"The last checkpoint in {checkpoints.directory} is good.{after} Give the same "
                "command with a larger training.roll_backs to go back and on with other images; "
                "or try",
            )
        return RollBack(step, target)


def _target(saved: Sequence[int], last_finite: int, done: Sequence[RollBack]) -> int | None:
    """Return the newest step from before; one that was no good start before is no longer taken.

    Unless there is no other.
    """
    good = [step for step in saved if step <= last_finite]
    untried = [step for step in good if step not in {one.back_to for one in done}]
    return max(untried or good, default=None)
