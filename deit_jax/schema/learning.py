"""Keys of the optimisation, and of what a run evaluates, saves and logs."""

from dataclasses import dataclass

from deit_jax.schema.declare import (
    BELOW_ONE,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    Bounds,
    Options,
    key,
)


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """From gradients to steps."""

    name: str = key("adamw", choices=("adamw", "sgd", "lamb"))
    # Per so many images of a batch (multiplied by batch_size / per_images); 0: as it is.
    learning_rate: float = key(5e-4, POSITIVE)
    per_images: int = key(512, NOT_NEGATIVE)
    weight_decay: float = key(0.05, NOT_NEGATIVE)
    # "reference": all but 1-D, biases, position embedding and class token is decayed;
    # "timm": the distillation token is spared as well.
    no_decay: str = key("reference", choices=("reference", "timm"))
    b1: float = key(0.9, BELOW_ONE)
    b2: float = key(0.999, BELOW_ONE)
    eps: float = key(1e-8, POSITIVE)
    # SGD only.
    momentum: float = key(0.9, BELOW_ONE)
    nesterov: bool = key(True)
    # Every layer further from the heads learns so many times as fast; 1 is no difference.
    layer_decay: float = key(1.0, POSITIVE)
    # Largest global norm of the gradient; 0 does not clip.
    clip_norm: float = key(0.0, NOT_NEGATIVE)


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """The learning rate over time."""

    # After warm-up.
    name: str = key("cosine", choices=("cosine", "linear", "step", "constant"))
    epochs: float = key(300.0, POSITIVE)
    # Where so many epochs would be fewer steps than this, an epoch is several passes over the
    # images: a few hundred images need many. Everything that is counted in epochs follows.
    least_steps: int = key(0, NOT_NEGATIVE)
    # Further epochs at the last rate.
    cooldown_epochs: float = key(0.0, NOT_NEGATIVE)
    warmup_epochs: float = key(5.0, NOT_NEGATIVE)
    # Absolute, not scaled with the batch (as in the reference).
    warmup_learning_rate: float = key(1e-6, NOT_NEGATIVE)
    final_learning_rate: float = key(1e-5, NOT_NEGATIVE)
    # "step" only: every so many epochs, times so much.
    decay_epochs: float = key(30.0, POSITIVE)
    decay_rate: float = key(0.1, SHARE)
    # One rate for each epoch and that one epoch late (reference code), or one for each step.
    per_epoch: bool = key(False)
    # First and last epoch with noise as shares of all, such as (0.5, 1.0). Its standard deviation
    # and its limit are relative to the rate.
    noise_range: tuple[float, float] | tuple[()] = key(
        (), NOT_NEGATIVE, words="two rising shares of the epochs", rising="<"
    )
    noise_std: float = key(1.0, POSITIVE)
    noise_limit: float = key(0.67, POSITIVE)


@dataclass(frozen=True)
class TrainingOptions(Options):
    """The step."""

    # Global, repeats included.
    batch_size: int = key(1024, POSITIVE)
    # Run the batch as so many slices and add their gradients: same result, less memory.
    micro_batches: int = key(1, POSITIVE)
    # "blocks" keeps the input of each transformer block alone, and computes it again in the
    # backward pass: a fraction of the memory, for another forward pass of time.
    remat: str = key("none", choices=("none", "blocks"))
    label_smoothing: float = key(0.1, FRACTION)
    # "cross_entropy"; "binary_cross_entropy" with the same targets; or
    # "multi_hot_binary_cross_entropy", where every class mixed in counts in full (DeiT III).
    loss: str = key(
        "cross_entropy",
        choices=("cross_entropy", "binary_cross_entropy", "multi_hot_binary_cross_entropy"),
    )
    # Two submodels (draws of stochastic depth) learn from each other (arXiv 2212.04884).
    cosub: bool = key(False)
    # What is trained: "all", "attention" (with position embedding and heads) or "heads".
    parts: str = key("all", choices=("all", "attention", "heads"))
    # Train what inference computes: no dropout, no stochastic depth, the mean of both logits.
    # How the reference fine-tuned at 384.
    eval_mode: bool = key(False)
    # On a GPU: the same bits in every run and after every resume, by kernels that add up in one
    # order only. Costs speed. CPUs and TPUs repeat themselves without it. With it, and on
    # CPUs, a teacher is asked by a program of its own, so that kept labels change no bit.
    repeatable: bool = key(False)
    # Stop after so many steps with non-finite loss or gradient in a row.
    max_skipped_steps: int = key(10, POSITIVE)
    # Instead of stopping go back to the last checkpoint from before those steps, and on with the
    # images that would have come next; at most so many times in a run.
    roll_backs: int = key(0, NOT_NEGATIVE)


@dataclass(frozen=True)
class MeshOptions(Options):
    """How the devices share the work; all of them share every batch."""

    # Split parameters, moments and averages over so many devices, of which each holds a part, where
    # memory is short; 1: each has a copy. A divisor of the number of devices.
    fsdp: int = key(1, POSITIVE)


@dataclass(frozen=True)
class EmaOptions(Options):
    """The moving average of the parameters."""

    # 0 switches it off. The reference's 0.99996 suits runs of 100,000s of steps.
    decay: float = key(0.99996, BELOW_ONE)
    # Use min(decay, (1 + step) / (10 + step)), so that short runs have a useful EMA.
    warmup: bool = key(False)


@dataclass(frozen=True)
class EvaluationOptions(Options):
    """What is measured of the whole evaluation split, and when."""

    batch_size: int = key(1024, POSITIVE)
    every_epochs: float = key(1.0, POSITIVE)
    # Both heads at inference: "mean_logits" (published accuracies) or "sum_softmax" (paper).
    fusion: str = key("mean_logits", choices=("mean_logits", "sum_softmax"))
    # Which weights decide the best checkpoint: "raw" or "ema".
    weights: str = key("raw", choices=("raw", "ema"))


@dataclass(frozen=True)
class CheckpointOptions(Options):
    """What is saved, and when."""

    every_steps: int = key(1000, POSITIVE)
    keep_latest: int = key(2, POSITIVE)
    # Keep one for good every so many steps; 0 keeps none.
    keep_every_steps: int = key(0, NOT_NEGATIVE)
    keep_best: int = key(1, NOT_NEGATIVE)


@dataclass(frozen=True)
class LogOptions(Options):
    """What is written down while training."""

    every_steps: int = key(50, POSITIVE)
    tensorboard: bool = key(True)
    # So many images of the first batch, as the network sees them, are shown in TensorBoard.
    images: int = key(12, Bounds("between 0 and 64", least=0, most=64))
