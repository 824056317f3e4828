"""What is measured at which size: the real ones, and those of a trial that takes seconds."""

from dataclasses import dataclass

from benchmarks.cases import Case


@dataclass(frozen=True)
class Sizes:
    """Models and batches of one slot.

    Attributes:
        model: the transformer that is trained.
        large: the second one.
        distilled: the transformer that is taught.
        teacher: who teaches it.
        convnets: that are trained in float32, with their batches: one so small that a CPU soon
            has the same loss, and one of a size that is in use.
        batch: images of a timed call.
        check: images of a call that is compared with float32.
        depths: blocks of the transformers whose difference is a block's time.
        full: its real number of blocks.
        rounds: turns of each program.
        turn_seconds: shortest turn.
        images: JPEG files.
        steps: of a training run on them.
        resume_steps: of the runs whose ends are compared.
    """

    model: str
    large: str
    distilled: str
    teacher: str
    convnets: tuple[tuple[str, int], tuple[str, int]]
    batch: int
    check: int
    depths: tuple[int, int]
    full: int
    rounds: int
    turn_seconds: float
    images: int
    steps: int
    resume_steps: int

    def train(self, model: str = "") -> Case:
        """Return the train step of a model in bfloat16."""
        return Case(model or self.model, "train", self.batch, "bfloat16")

    def distill(self) -> Case:
        """Return the step with the teacher inside."""
        return Case(self.distilled, "distill", self.batch, "bfloat16", self.teacher)

    def inference(self, model: str = "") -> Case:
        """Return a forward pass."""
        return Case(model or self.model, "inference", self.batch, "bfloat16")


REAL = Sizes(
    model="deit_small_patch16_224",
    large="deit_base_patch16_224",
    distilled="deit_small_distilled_patch16_224",
    teacher="regnety_160",
    convnets=(("regnety_micro", 256), ("regnety_040", 64)),
    batch=256,
    check=8,
    depths=(4, 8),
    full=12,
    rounds=5,
    turn_seconds=0.25,
    images=2048,
    steps=60,
    resume_steps=12,
)
SMALL = Sizes(
    model="deit_micro_patch4_16",
    large="deit_micro_patch2_16",
    distilled="deit_micro_distilled_patch4_16",
    teacher="regnety_micro",
    convnets=(("regnety_micro", 4), ("regnety_micro", 8)),
    batch=4,
    check=4,
    depths=(1, 2),
    full=3,
    rounds=2,
    turn_seconds=0.01,
    images=8,
    steps=4,
    resume_steps=4,
)


def sizes(small: bool) -> Sizes:
    """Return those of a trial, or the real ones."""
    return SMALL if small else REAL
