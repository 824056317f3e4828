"""What a checkpoint says about itself: the arrays it must hold, its metrics, its notes.

One JSON object that is committed together with the arrays. It carries its own checksum, and for
each array the type, the shape and the fingerprint taken before anything was written.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax

from deit_jax.runs.fingerprint import fingerprints, named_leaves

_FORMAT = 1

SKIPPED_IN_A_ROW = "skipped_in_a_row"
"""Note of a checkpoint whose last steps were not finite, of how many; see `Manifest.in_doubt`."""


class DamagedCheckpoint(Exception):
    """A checkpoint on disk is not what was saved; the message says in what respect."""


@dataclass(frozen=True)
class Manifest:
    """The contents of a checkpoint.

    Attributes:
        step: the step it was saved at.
        arrays: by path in the state, [type, shape, fingerprint].
        metric: name of the metric that says which checkpoint is best.
        metrics: the finite ones of the metrics given when it was saved.
        meta: the notes of the caller.
    """

    step: int
    arrays: dict[str, list[Any]]
    metric: str
    metrics: dict[str, float]
    meta: dict[str, Any]

    @property
    def score(self) -> float | None:
        """Value of the deciding metric, or None if it was not measured or not finite."""
        return self.metrics.get(self.metric)

    @property
    def in_doubt(self) -> bool:
        """Whether the steps before it were not finite: the next ones may not be either."""
        return bool(self.meta.get(SKIPPED_IN_A_ROW))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with a format number and a checksum over all the rest."""
        # Through text and back: tuples become lists, as they will be when it is read again.
        content = json.loads(json.dumps({"format": _FORMAT, **asdict(self)}))
        return {**content, "checksum": _checksum(content)}

    @classmethod
    def from_json(cls, content: Any) -> "Manifest":
        """Verify what was read.

        Raises:
            DamagedCheckpoint: the checksum does not fit.
            ValueError: another version of this project wrote it.
        """
        if not isinstance(content, dict) or "checksum" not in content:
            raise DamagedCheckpoint("its manifest is not one of deit_jax")
        content = dict(content)
        if content.pop("checksum") != _checksum(content):
            raise DamagedCheckpoint("its manifest does not match its own checksum")
        if content.pop("format") != _FORMAT:
            raise ValueError("The checkpoint was written by another version of deit_jax; use that.")
        return cls(**content)

    def check_fits(self, abstract_state: Any, where: str) -> None:
        """Compare with the arrays that the present model and optimiser ask for.

        Raises:
            ValueError: an array is missing, left over, or of another shape or type.
        """
        saved = {name: (tuple(shape), dtype) for name, (dtype, shape, _) in self.arrays.items()}
        asked = {
            name: (tuple(leaf.shape), str(leaf.dtype))
            for name, leaf in named_leaves(abstract_state).items()
        }
        differences = [
            f"{name} is {_spell(saved.get(name))} in the checkpoint but {_spell(asked.get(name))} "
            "in the model"
            for name in {**asked, **saved}
            if saved.get(name) != asked.get(name)
        ]
        if differences:
            more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
            raise ValueError(
                f"{where} does not fit: {'; '.join(differences[:3])}{more}. Use the configuration "
                "it was saved with, or start the other one in a new --workdir."
            )

    def check_values(self, arrays: Any) -> None:
        """Compare the fingerprints of arrays that were read, named as in the state.

        Raises:
            DamagedCheckpoint: at least one differs.
        """
        found = fingerprints(arrays)
        wrong = [name for name, value in found.items() if value != self.arrays[name][2]]
        if wrong:
            more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise DamagedCheckpoint(f"{wrong[0]}{more} does not match its fingerprint")


def describe_arrays(state: Any) -> dict[str, list[Any]]:
    """Return [type, shape, fingerprint] of each array of a state, by path."""
    found = fingerprints(state)
    return {
        name: [str(leaf.dtype), list(leaf.shape), found[name]]
        for name, leaf in named_leaves(state).items()
    }


def check_storable(state: Any) -> None:
    """Refuse what Orbax cannot store, or would store as something else.

    Raises:
        TypeError: a leaf is no `jax.Array`.
        ValueError: an array is empty.
    """
    for name, leaf in named_leaves(state).items():
        if not isinstance(leaf, jax.Array):
            raise TypeError(f"{name} is a {type(leaf).__name__}; a state holds jax.Arrays only.")
        if leaf.size == 0:
            raise ValueError(f"{name} has shape {leaf.shape}; empty arrays cannot be saved.")


def finite(metrics: Mapping[str, float] | None, required: str) -> dict[str, float]:
    """Keep the finite metrics: Orbax would rank a checkpoint whose metric is NaN as the best.

    Raises:
        ValueError: metrics were given, but not the one that decides which checkpoint is best.
    """
    if metrics is None:
        return {}
    if required not in metrics:
        raise ValueError(
            f"The best checkpoint is chosen by {required!r}, which is not among the metrics "
            f"{sorted(metrics)}; name one of them."
        )
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _spell(kind: tuple[tuple[int, ...], str] | None) -> str:
    return "absent" if kind is None else f"{kind[1]}{list(kind[0])}"
