"""The one reader of weights from anywhere: a run of train.py, one of its checkpoints, or a file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deit_jax.data.combined import keep_classes
from deit_jax.data.identity import combine
from deit_jax.data.open import open_source
from deit_jax.files import read_json, strict_json
from deit_jax.runs.checkpoints.directory import select
from deit_jax.runs.checkpoints.manifest import DamagedCheckpoint
from deit_jax.runs.checkpoints.orbax_store import read_saved_manifest
from deit_jax.runs.checkpoints.saved_weights import restore_parameters
from deit_jax.runs.read import Run, load_run, run_preprocessing
from deit_jax.weights.description.config import CONFIG, Description
from deit_jax.weights.description.facts import Facts
from deit_jax.weights.description.network import registered
from deit_jax.weights.formats.any import PREPROCESSORS, read_file, sha256_of, sidecar
from deit_jax.weights.formats.hub import locate_weights
from deit_jax.weights.formats.shards import files_of, find_weights
from deit_jax.weights.reading import Weights, interpret

_PARTS = {"model": "params", "ema": "ema"}


@dataclass(frozen=True, kw_only=True)
class RunWeights(Weights):
    """Weights of a run's checkpoint.

    Attributes:
        config: of the run, nested; keys that are younger than the run have their defaults.
        which: "model" or "ema".
        step: of the checkpoint.
        metrics: that it was saved with.
    """

    config: dict[str, Any] = field(default_factory=dict)
    which: str = "model"
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


def read_weights(
    path: str | os.PathLike[str],
    *,
    which: str = "model",
    model: str = "",
    checkpoint: str | int = "best",
    download: bool = False,
    like: str = "",
) -> Weights:
    """Read weights of any known kind; what kind is seen from the content.

    Args:
        path: a `.pth`, `.pt` or `.safetensors` file of the reference, timm, transformers,
            torchvision or of ours; a directory with such a file; a run directory of train.py or
            one of its checkpoints; the name of a Hugging Face repository in the local cache; or a
            short name of weights in a package, such as "lite0".
        which: "model", or "ema" for the moving average in a run or training checkpoint; "" is of a
            run what its configuration evaluates, by which its best checkpoint was chosen.
        model: registered name, where it is not to be recognised from names and shapes.
        checkpoint: of a run directory: "best", "latest" or a step.
        download: fetch a repository that is not in the cache.
        like: registered name of a model that shall take them, by which networks of the same
            tensors are told apart where the file does not name its own.

    Returns:
        The weights; of a run they are `RunWeights`.

    Raises:
        FileNotFoundError: there is nothing of that name.
        ValueError: it is damaged, not known, or not of the model that was named. Whether it is
            complete is seen when it is fitted to a model.
    """
    where = locate_weights(os.path.expanduser(os.fspath(path)), download=download)
    weights: Weights
    if run := _run_of(where, checkpoint):
        weights = _read_run(*run, which)
    else:
        _refuse_checkpoint(where)
        weights = interpret(read_file(where, which or "model"), model, like)
    if model and weights.model_name != model:
        raise ValueError(
            f"{weights.source} holds {weights.model_name or 'another architecture'}, not {model}."
        )
    return weights


def weights_identity(path: str | os.PathLike[str], which: str, checkpoint: str | int) -> str:
    """Return a SHA-256 that changes whenever `read_weights` would return something else.

    It may also change where that would not. Arrays of a run are not read, but the fingerprints
    that they were saved with.

    Raises:
        FileNotFoundError, ValueError: as `read_weights`, as far as it is seen without reading.
    """
    where = locate_weights(os.path.expanduser(os.fspath(path)))
    if run := _run_of(where, checkpoint):
        record, path = load_run(run[0]), select(run[0] / "checkpoints", run[1])
        try:
            saved = read_saved_manifest(path)
        except DamagedCheckpoint as error:
            raise ValueError(f"Checkpoint {path} is damaged: {error}.") from error
        said = (record.config, record.class_names, saved.step, saved.meta, saved.arrays)
        return combine([which, strict_json(said)])
    file = find_weights(where)
    beside = ("config.json", *PREPROCESSORS, sidecar(file).name)
    files = [file.with_name(name) for name in (file.name, *files_of(file), *beside)]
    return combine([which, *(sha256_of(path) for path in files if path.is_file())])


def is_run(path: Path) -> bool:
    """Return whether it is the directory of a run of train.py, even before its first checkpoint.

    The `config.json` of others says other things.
    """
    config = path / "config.json"
    if not config.is_file():
        return False
    if (path / "checkpoints").is_dir():
        return True
    try:
        record = read_json(config)
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "config" in record


def _run_of(path: Path, checkpoint: str | int) -> tuple[Path, str | int] | None:
    """Return run directory and checkpoint, if the path is of a run of train.py or inside of one."""
    if path.parent.name == "checkpoints" and path.name.isdigit():
        path, checkpoint = path.parent.parent, int(path.name)
    elif path.name == "checkpoints":
        path = path.parent
    return (path, checkpoint) if is_run(path) else None


def _refuse_checkpoint(path: Path) -> None:
    """Say what is missing where checkpoints lie without their run."""

    def is_step(directory: Path) -> bool:
        return (directory / "meta").is_dir() and (directory / "params").is_dir()

    steps = path.is_dir() and any(p.name.isdigit() and is_step(p) for p in path.iterdir())
    if steps or is_step(path):
        what = "checkpoints" if steps else "one checkpoint"
        raise ValueError(
            f"{path} holds {what} of a run of train.py without the run's config.json, which says "
            "what model they are of; give the run's directory, or copy its config.json and "
            "checkpoints/ together."
        )


def _read_run(path: Path, checkpoint: str | int, which: str) -> RunWeights:
    run = load_run(path)
    config = run.config
    which = which or ("ema" if config["evaluation"]["weights"] == "ema" else "model")
    if which not in _PARTS:
        raise ValueError(f"There are no {which!r} weights; choose model or ema.")
    params, batch_stats, meta = restore_parameters(path / "checkpoints", checkpoint, _PARTS[which])
    model = config["model"]
    size = (int(model["image_size"][0]), int(model["image_size"][1]))
    facts = Facts(
        size,
        run_preprocessing(config),
        _class_names(run, meta),
        notes=(f"Step {meta['step']:,} of the run, {which} weights.",),
    )
    return RunWeights(
        str(path),
        "deit_jax",
        model["name"],
        model["num_classes"],
        size,
        params,
        batch_stats,
        facts,
        num_heads=registered(model["name"], model["num_heads"]).num_heads,
        said=Description("deit_jax", CONFIG, model["name"]),
        config=config,
        which=which,
        step=meta["step"],
        metrics=meta["metrics"] or {},
    )


def _class_names(run: Run, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names: of the checkpoint, else of the run's record, else of its data.

    Args:
        run: maybe one from before names were kept.
        meta: notes that its checkpoint was saved with.

    Returns:
        One name for each class; () if nothing says them any more.
    """
    count = run.config["model"]["num_classes"]
    for names in (meta.get("class_names"), run.class_names):
        if names and len(names) == count:
            return tuple(names)
    data = run.config["data"]
    try:
        source = open_source(data["source"], data["eval_split"], data["directory"])
        found = keep_classes(source, data["classes"]).class_names
    except (OSError, ValueError, ModuleNotFoundError):
        # The data need not be where the run was trained.
        return ()
    return found if len(found) == count else ()
