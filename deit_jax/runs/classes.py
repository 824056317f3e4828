"""The names of the classes of a run, also of one from before they were kept."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deit_jax.data.combined import keep_classes
from deit_jax.data.open import open_source
from deit_jax.runs.read import load_run


def class_names_of_run(
    run: str | Path, config: Mapping[str, Any], meta: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the names: of the checkpoint, else of the run's record, else of its data.

    Args:
        run: its directory.
        config: of the run.
        meta: notes that its checkpoint was saved with.

    Returns:
        One name for each class; () if nothing says them any more.
    """
    count = config["model"]["num_classes"]
    for names in (meta.get("class_names"), load_run(run).class_names):
        if names and len(names) == count:
            return tuple(names)
    data = config["data"]
    try:
        source = open_source(data["source"], data["eval_split"], data["directory"])
        found = keep_classes(source, data.get("classes", 0)).class_names
    except (OSError, ValueError, ModuleNotFoundError):
        # The data need not be where the run was trained.
        return ()
    return found if len(found) == count else ()
