"""What lies in a run's directory, read and checked, for all who read runs; without JAX."""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_jax.config.defaults import default_config
from deit_jax.config.keys import leaves_by_key
from deit_jax.config.saved import complete
from deit_jax.preprocessing import EvalView, Preprocessing
from deit_jax.runs.json_shape import misfits
from deit_jax.schema import RULES
from deit_jax.schema.declare import conform

# Every run has them, of whatever age: they say what its weights are.
_NEEDED = ("model.name", "model.num_classes", "model.image_size", "augment.mean", "augment.std")
# What weights are evaluated by; a value of another kind would end in a traceback.
_CHECKED = (
    "model.num_classes",
    "model.image_size",
    "model.dtype",
    "model.residual_dtype",
    "data.eval_crop_ratio",
    "evaluation.batch_size",
    "evaluation.fusion",
    "evaluation.weights",
)
_DATA = {"images": 0, "classes": 0, "records": "", "contents": ""}
_RECORD = {
    "overrides": ("",),
    "command": ("",),
    "versions": {},
    "git_commit": "",
    "class_names": ("",),
    "older_than": ("",),
    "history": ({},),
    "first_checkpoint": 0,
    "made_from": {
        "data": {"train": _DATA, "eval": _DATA},
        "devices": {"kind": "", "count": 0, "processes": 0},
    },
}
_RESULT = {
    "steps": 0,
    "epochs": 0.0,
    "seconds": 0.0,
    "distillation": {"token": False},
    "data": {"train_images": 0, "eval_images": 0},
    "evaluation": {},
}
_LABELS = {"directory": "", "computed": 0, "read": 0}


@dataclass(frozen=True)
class Run:
    """A run as a reader sees it.

    Attributes:
        path: absolute, of its directory.
        config: nested configuration; keys that are younger than the run have their defaults.
        result: what `result.json` holds; None until the run has finished.
        record: all of `config.json`: see `read_run_record`.
        class_names: () in runs from before they were kept.
    """

    path: Path
    config: dict[str, Any]
    result: dict[str, Any] | None
    record: dict[str, Any]
    class_names: tuple[str, ...]


def load_run(workdir: str | Path) -> Run:
    """Read configuration and result of a run; nothing is changed.

    Raises:
        FileNotFoundError: there is no run in that directory.
        ValueError: a file of it cannot be understood.
    """
    path = Path(workdir).absolute()
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"There is no run in {path} (it has no config.json).")
    record = read_run_record(path)
    config, _ = complete(record["config"])
    return Run(path, config, read_result(path), record, tuple(record.get("class_names", ())))


def run_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """Return how a run shows images to the network that it evaluates."""
    view = EvalView.keeping(config["data"]["eval_crop_ratio"])
    mean, std = (tuple(config["augment"][key]) for key in ("mean", "std"))
    return Preprocessing(view, mean, std, assumed=())


def read_run_record(workdir: str | Path) -> dict[str, Any]:
    """Read `config.json`: the configuration under "config", and how the run was started.

    Raises:
        ValueError: something else wrote it, or it is damaged: the first value that is wrong is
            named.
    """
    path = Path(workdir) / "config.json"
    record = _read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise ValueError(f"{workdir} holds no run: its config.json was not written by deit_jax.")
    _refuse(path, [*_config_problems(record["config"]), *misfits(record, _RECORD)])
    return record


def read_result(workdir: str | Path) -> dict[str, Any] | None:
    """Read `result.json`; None if the run has not finished.

    Raises:
        ValueError: it is damaged.
    """
    path = Path(workdir) / "result.json"
    if not path.is_file():
        return None
    result = _read_json(path)
    _refuse(path, _result_problems(result))
    return result


@functools.cache
def _example() -> dict[str, Any]:
    return default_config().to_dict()


def _config_problems(config: dict[str, Any]) -> Iterator[str]:
    problems = list(misfits(config, _example()))
    yield from problems
    values = leaves_by_key(config)
    yield from (f"{key} is missing" for key in _NEEDED if key not in values)
    for key in _CHECKED if not problems else ():
        try:
            if key in values:
                conform(key, values[key], RULES[key])
        except ValueError as error:
            yield str(error).rstrip(".")


def _result_problems(result: Any) -> Iterator[str]:
    if not isinstance(result, dict):
        yield "it is no object"
        return
    yield from misfits(result, _RESULT)
    if result.get("labels") is not None:
        yield from misfits(result["labels"], _LABELS, "labels")
    needed = [key for key in leaves_by_key(_RESULT) if key not in leaves_by_key(result)]
    yield from (f"{key} is missing" for key in needed)
    if "evaluation" not in result:
        yield "evaluation is missing"
    evaluation = result.get("evaluation")
    for weights, heads in evaluation.items() if isinstance(evaluation, dict) else ():
        example = {head: {"top1": 0.0} for head in ("class", "distillation", "fused")}
        yield from misfits(heads, example, f"evaluation.{weights}")


def _refuse(path: Path, problems: Any) -> None:
    if first := next(iter(problems), None):
        raise ValueError(f"{path} is damaged: {first}; put back a copy, or leave this run out.")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: it cannot be read as JSON ({error}); put back a copy, or leave "
            "this run out."
        ) from error
