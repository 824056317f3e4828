"""The weights in a run's checkpoints, for whoever does not go on with it."""

from pathlib import Path
from typing import Any

from deit_jax.files import require_utf8
from deit_jax.runs.checkpoints import directory as on_disk
from deit_jax.runs.checkpoints import orbax_store
from deit_jax.runs.checkpoints.manifest import DamagedCheckpoint


def restore_parameters(
    directory: str | Path, which: str | int = "best", weights: str = "params"
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Read the weights of a run, perhaps one that is still going on; nothing is changed.

    Args:
        directory: the `checkpoints` directory of the run.
        which: "best", "latest" or a step.
        weights: "params" for the raw ones, "ema" for their moving average.

    Returns:
        Parameters and BatchNorm statistics as nested dicts of numpy arrays, and the notes saved
        with them, to which "step" and "metrics" are added.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, has no moving average, or none has a metric to be best by.
    """
    if weights not in ("params", "ema"):
        raise ValueError(f"weights must be 'params' or 'ema', not {weights!r}.")
    require_utf8(Path(directory).absolute())
    path = on_disk.select(Path(directory).absolute(), which)
    try:
        manifest = orbax_store.read_saved_manifest(path)
        tree = orbax_store.read_saved_weights(path, manifest, weights)
        if weights == "params":
            batch_stats = orbax_store.read_saved_weights(path, manifest, "batch_stats")
            tree = {"params": tree, "batch_stats": batch_stats}
    except DamagedCheckpoint as error:
        if not path.exists():
            raise FileNotFoundError(
                f"Checkpoint {path} was superseded while it was read; ask again."
            ) from error
        raise ValueError(f"Checkpoint {path} is damaged: {error}; choose another step.") from error
    if not tree:
        raise ValueError(
            f"Checkpoint {path} has no moving average, because its run had ema.decay=0; "
            "use the raw weights."
        )
    notes = {**manifest.meta, "step": manifest.step, "metrics": manifest.metrics}
    return tree["params"], tree.get("batch_stats", {}), notes
