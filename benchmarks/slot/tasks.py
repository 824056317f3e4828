"""What is asked of a GPU, in the order of asking."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

_STEP = (
    "deit_jax/devices.py",
    "deit_jax/sharding.py",
    "deit_jax/models/*.py",
    "deit_jax/augment/*.py",
    "deit_jax/training/*.py",
    "deit_jax/training/distillation/*.py",
    "benchmarks/jax_side.py",
    "benchmarks/cases.py",
    "benchmarks/timing.py",
)
_RUN = (
    *_STEP,
    "train.py",
    "deit_jax/data/**/*.py",
    "deit_jax/runs/*.py",
    "benchmarks/slot/runs.py",
)
_RUN_PACKAGES = ("ml_collections", "grain", "array_record", "tensorboardX")


class NeedsDevice(Exception):
    """What a part raises that is about hardware which is not here."""


@dataclass(frozen=True)
class Task:
    """A question, answered by a process of its own, part by part.

    Attributes:
        name: for `--only`, and in the results.
        answers: what is known afterwards.
        module: in `benchmarks.slot`; its `prepare` returns a function from part to result.
        parts: in order, each with the seconds that it is expected to take on an H200 with 16 cores.
        sources: files that the answer depends on, as patterns; with others it is asked again.
        packages: whose versions it depends on.
        needs: packages that have to be installed.
        start: seconds until its process has imported everything and started the device.
    """

    name: str
    answers: str
    module: str
    parts: dict[str, float]
    sources: tuple[str, ...] = _STEP
    packages: tuple[str, ...] = ("jax", "jaxlib")
    needs: tuple[str, ...] = ()
    start: float = 12.0

    def estimate(self, parts: Iterable[str]) -> float:
        """Return the seconds that these parts are expected to take in one process."""
        return self.start + sum(self.parts[part] for part in parts)

    def limit(self, parts: Iterable[str]) -> float:
        """Return the seconds after which their process is stopped."""
        return 2.0 * self.estimate(parts) + 30.0

    def all_sources(self) -> tuple[str, ...]:
        """Patterns of everything that the answer depends on, the question's own file included."""
        return (*self.sources, f"benchmarks/slot/{self.module}.py")

    def missing(self) -> list[str]:
        """Return the packages that it needs and that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


TASKS: tuple[Task, ...] = (
    Task(
        "correctness",
        "logits, gradients and one step agree with float32",
        "correctness",
        {"logits": 15, "gradients": 25, "step": 30},
    ),
)


def task(name: str) -> Task:
    """Look a task up by name; raises ValueError that names them all."""
    for known in TASKS:
        if known.name == name:
            return known
    raise ValueError(f"{name!r} is none of {', '.join(known.name for known in TASKS)}")
