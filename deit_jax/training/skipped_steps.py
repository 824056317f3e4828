"""When so many steps were skipped, their loss or gradient not being finite, that training stops."""


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says why and where the last good state is.

    Attributes:
        of_all_processes: raised by all processes of a run at the same point.
    """

    of_all_processes = True


def stopped_by(step: int, in_a_row: int, more: str) -> TrainingStopped:
    """Return what ends training where the loss has not been finite for too many steps.

    Args:
        step: steps taken so far.
        in_a_row: how many of the last ones were skipped.
        more: what there is to go back to; ends in "try", before what else to do.
    """
    return TrainingStopped(
        f"the loss or gradient was not finite in the last {in_a_row} steps up to step {step}. "
        f"Parameters were left as they were before. {more} a lower optimizer.learning_rate, "
        "optimizer.clip_norm=1.0 or model.dtype=float32, in a new workdir."
    )


def stop_if_nothing_was_learned(skipped: int, total: int) -> None:
    """Stop, at the end of a run of `total` steps, if all of them were skipped.

    Raises:
        TrainingStopped: they were.
    """
    if skipped < total:
        return
    raise TrainingStopped(
        f"the loss or gradient was not finite in any of the {total:,} steps, so nothing was "
        "learned. Look at augment.mean and std, the data and model.weights; try a lower "
        "optimizer.learning_rate or model.dtype=float32, in a new workdir."
    )
