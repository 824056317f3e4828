"""Agreement between the processes of a run, where one alone must not decide."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def all_processes(condition: bool) -> bool:
    """Return whether a condition holds on every process; all of them must ask, at the same point.

    What follows may then be a collective operation: a process that has failed before it would
    leave the others waiting.
    """
    if jax.process_count() == 1:
        return condition
    return bool(np.all(multihost_utils.process_allgather(np.asarray(condition))))


def any_process(condition: bool) -> bool:
    """Return whether a condition holds on one process at least; all of them must ask, as above."""
    return not all_processes(not condition)


def from_first(arrays: Any) -> Any:
    """Return the first process's arrays on every process; all must ask, with arrays of one form."""
    if jax.process_count() == 1:
        return arrays
    return multihost_utils.broadcast_one_to_all(arrays)
