"""What a run was made from, and what of it has changed when the run goes on."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from deit_jax.data.identity import identity_of
from deit_jax.runs.fingerprint import digest

if TYPE_CHECKING:
    from deit_jax.training.setup import Setup
    from deit_jax.weights.fit import Fitted

MadeFrom = dict[str, Any]
"""JSON: "data" (a record for "train" and one for "eval"), "teacher", "initial"
(weights; None without any, or where a checkpoint took their place) and "devices"."""

_SPLITS = {"train": "training", "eval": "evaluation"}


class Changes(NamedTuple):
    """Phrases about what is other than it was: what decides a run, and what its last bits."""

    refused: list[str]
    warned: list[str]


def made_from(setup: "Setup", initial: "Fitted | None") -> MadeFrom:
    """Return the record of what a run is made from; reads images, but few of a large data set.

    Args:
        setup: of the run.
        initial: weights that it starts from; None where there are none or it goes on.
    """
    devices = jax.devices()
    return {
        "data": {
            "train": identity_of(setup.train_source),
            "eval": identity_of(setup.eval_source),
        },
        "teacher": setup.taught_by,
        "initial": {
            "weights": setup.config.model.weights,
            "digest": digest({"params": initial.params, "batch_stats": initial.batch_stats}),
        }
        if initial
        else None,
        "devices": {
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": jax.process_count(),
            "fsdp": setup.config.mesh.fsdp,
        },
    }


def changes(saved: Mapping[str, Any], now: MadeFrom) -> Changes:
    """Compare what a run was made from with what it is given now.

    Only what both have is compared: where one has no teacher, say, the configuration tells.
    """
    refused, warned = [], []
    old_data, data = saved.get("data", {}), now["data"]
    for split, words in _SPLITS.items():
        if what := ", ".join(_of_data(old_data.get(split, {}), data[split])):
            refused.append(f"the {words} data: {what}")
    old, new = saved.get("teacher"), now["teacher"]
    if isinstance(old, dict) and new:
        if _differ(old, new, "digest"):
            refused.append(f"the teacher {new['weights']}: {_steps(old, new)}other weights")
        elif _differ(old, new, "view"):
            refused.append(f"the teacher {new['weights']}: other normalisation, size or classes")
        elif _differ(old, new, "folded"):
            warned.append("the teacher's BatchNorm folds to other last bits on this device")
    old, new = saved.get("initial"), now["initial"]
    if isinstance(old, dict) and new and _differ(old, new, "digest"):
        refused.append(f"the weights to start from, {new['weights']}: other values")
    old, new = saved.get("devices", {}), now["devices"]
    # Records from before the key are of runs that copied the state.
    old = {"fsdp": 1, **old} if old else old
    if any(_differ(old, new, key) for key in new):
        warned.append(f"{_devices(old)} -> {_devices(new)}")
    return Changes(refused, warned)


def _of_data(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in ("images", "classes"):
        if _differ(old, new, key):
            yield f"{old[key]:,} -> {new[key]:,} {key}"
    if _differ(old, new, "records"):
        yield "other names, sizes or labels"
    elif _differ(old, new, "contents"):
        yield "other contents under the same names"


def _differ(old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> bool:
    return key in old and old[key] != new.get(key)


def _steps(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return f"step {old['step']} -> {new['step']}, " if _differ(old, new, "step") else ""


def _devices(record: Mapping[str, Any]) -> str:
    known = {"count": "?", "kind": "?", "processes": "?", "fsdp": 1, **record}
    split = ", fsdp {fsdp}" if known["fsdp"] != 1 else ""
    return ("{count} x {kind} in {processes} process(es)" + split).format(**known)
