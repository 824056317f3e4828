"""Whether a run had checkpoints that are not where it left them.

Without any checkpoint a run starts from scratch. That is right for one that was stopped before its
first, and would cost all that was trained, and its log, where a disk is not mounted.
"""

from pathlib import Path

from deit_jax.runs.checkpoints.directory import damaged_names, saved_steps
from deit_jax.runs.log_lines import read_lines
from deit_jax.runs.read import read_run_record


def refuse_lost_checkpoints(workdir: str | Path) -> None:
    """Raise if a run is to start from scratch although it has had checkpoints.

    Raises:
        ValueError: saying what tells of them, and what to do.
    """
    path = Path(workdir).absolute()
    checkpoints = path / "checkpoints"
    if checkpoints.is_symlink() and not checkpoints.exists():
        raise ValueError(
            f"{checkpoints} is a link to {checkpoints.readlink()}, which is not there; mount or "
            "put back what it leads to, or choose another --workdir."
        )
    if not (path / "config.json").is_file():
        return
    if saved_steps(checkpoints) or damaged_names(checkpoints):
        return
    if sign := _sign(path):
        raise ValueError(
            f"The checkpoints of the run in {path} are gone: {sign}, but there is none in "
            f"{checkpoints}. Put them back (is a disk not mounted?), choose another --workdir, or "
            "empty this one to start from scratch."
        )


def _sign(path: Path) -> str:
    """Return what tells that there was a checkpoint, or ""."""
    if (path / "result.json").is_file():
        return "it has finished (result.json)"
    record = read_run_record(path)
    if first := record.get("first_checkpoint"):
        return f"it had one of step {first:,}"
    if "made_from" in record:
        return ""
    # Older runs did not write it down. Each save waits for the one before it.
    every = record["config"].get("checkpoint", {}).get("every_steps", 0)
    rows = [line.row for line in read_lines(path / "metrics.jsonl")]
    saves = {row["step"] for row in rows if row["split"] == "eval"}
    last = max((row["step"] for row in rows), default=0)
    saves |= set(range(every, last + 1, every)) if every > 0 else set()
    return f"metrics.jsonl reaches step {last:,}" if len(saves) > 1 else ""
