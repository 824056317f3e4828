"""Which checkpoint, and which evaluation, of a run is the best by the metric that decides.

That metric is chosen where evaluations are recorded: `training.recorder`.
"""

from collections.abc import Mapping


def best_first(scores: Mapping[int, float]) -> list[int]:
    """Return the steps by falling score, of equals the latest first: that one is kept longest.

    Args:
        scores: the deciding metric by step, finite.
    """
    return sorted(scores, key=lambda step: (scores[step], step), reverse=True)
