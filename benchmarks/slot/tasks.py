"""What is asked of a GPU, in the order of asking."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

_STEP = (
    "deit_jax/devices.py",
    "deit_jax/sharding.py",
    "deit_jax/config/defaults.py",
    "deit_jax/schema/*.py",
    "deit_jax/models/*.py",
    "deit_jax/models/fused/*.py",
    "deit_jax/augment/*.py",
    "deit_jax/training/*.py",
    "deit_jax/training/distillation/*.py",
    "benchmarks/jax_side.py",
    "benchmarks/programs.py",
    "benchmarks/cases.py",
    "benchmarks/timing.py",
    "benchmarks/slot/sizes.py",
)
_RUN = (
    *_STEP,
    "train.py",
    "deit_jax/data/**/*.py",
    "deit_jax/runs/**/*.py",
    "configs/deit.py",
    "benchmarks/photographs.py",
    "benchmarks/interrupted_run.py",
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
        "logits, gradients and one step agree with a CPU's in float32",
        "correctness",
        {"logits": 15, "gradients": 20, "step": 25},
    ),
    Task(
        "variants",
        "what each formulation of the train step changes",
        "variants",
        {
            **{"A": 45, "B": 8, "C": 8, "D": 45, "E": 8, "F": 8, "G": 35, "K": 35, "L": 12, "T": 8},
            **{"A in full": 25, "F in full": 25, "G in full": 25, "K in full": 25, "L in full": 25},
            **{"large, G in full": 30, "large, K in full": 30, "large, L in full": 30},
        },
        sources=(*_STEP, "benchmarks/slot/formulations.py"),
    ),
    Task(
        "kernels",
        "fused kernels compute what XLA's form of them does, and how fast, alone",
        "layers_alone",
        dict.fromkeys(
            (
                *("add_norm_forward", "add_norm_backward"),
                *("product_gelu", "gradient_product_gelu"),
            ),
            5,
        ),
        sources=(*_STEP, "benchmarks/slot/formulations.py"),
    ),
    Task(
        "comparison",
        "the step and inference beside timm with torch.compile",
        "comparison",
        {"train": 75, "inference": 45},
        sources=(*_STEP, "benchmarks/torch_side.py", "benchmarks/measure.py"),
        packages=("jax", "jaxlib", "torch", "timm"),
        needs=("torch", "timm"),
    ),
    Task(
        "teacher",
        "what distillation costs with the teacher inside the step",
        "teacher",
        {"teacher alone": 30, "teacher, wide epilogues": 25, "student alone": 30, "step": 45},
        sources=(*_STEP, "benchmarks/slot/formulations.py"),
    ),
    Task(
        "files",
        "training on JPEG files, and the share of it that waits for them",
        "runs",
        {"input": 60, "training": 75},
        sources=_RUN,
        needs=_RUN_PACKAGES,
        start=15,
    ),
    Task(
        "resume",
        "a resume with training.repeatable ends with the same bits",
        "runs",
        {"resume": 90},
        sources=_RUN,
        needs=_RUN_PACKAGES,
        start=15,
    ),
    Task(
        "convnets",
        "RegNetY trains in float32",
        "convnets",
        {"micro": 25, "regnety_040": 45},
    ),
    Task(
        "profile",
        "which kernels the time goes to",
        "profile",
        {"train": 30, "inference": 20, "distill": 40},
    ),
    Task(
        "layers",
        "GELU, LayerNorm, attention at 197, 198 and 208 tokens, and every product, alone",
        "layers_alone",
        {"GELU": 5, "LayerNorm": 5, "attention": 15, "products": 30},
        sources=(*_STEP, "benchmarks/slot/formulations.py"),
    ),
    Task(
        "more",
        "distillation and the large model beside timm with torch.compile",
        "comparison",
        {"distill": 130, "large, train": 100},
        sources=(*_STEP, "benchmarks/torch_side.py", "benchmarks/measure.py"),
        packages=("jax", "jaxlib", "torch", "timm"),
        needs=("torch", "timm"),
    ),
)
"""In the order of asking: what decides most first, what only explains last."""


def task(name: str) -> Task:
    """Look a task up by name; raises ValueError that names them all."""
    for known in TASKS:
        if known.name == name:
            return known
    raise ValueError(f"{name!r} is none of {', '.join(known.name for known in TASKS)}")
