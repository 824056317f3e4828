"""What to say before a run begins: settings that are allowed, but hardly meant at its size."""

from collections.abc import Iterator
from math import ceil
from typing import Final

from deit_jax.schema import Config
from deit_jax.training.learning_rate import peak_learning_rate, steps_of_epoch, total_steps
from deit_jax.training.setup import train_input

# Of the recipe's peak at a batch of 512: 1e-6 at the start of warm-up, 1e-5 at the end.
_START_SHARE: Final = 1 / 500
_FINAL_SHARE: Final = 1 / 50
# A moving average that looks back over a larger share of the run remembers its start.
_AVERAGE_SHARE: Final = 1 / 5


def advice(config: Config, steps_per_pass: float, devices: int = 1) -> list[str]:
    """Return a sentence with the numbers, and what to set, for each thing worth a second look.

    Args:
        config: already validated.
        steps_per_pass: images of the training set divided by the batch; need not be whole.
        devices: that share each batch.
    """
    images = round(steps_per_pass * config.training.batch_size)
    steps = total_steps(config, steps_of_epoch(config, images))
    return [
        *_learning_rate_advice(config),
        *_average_advice(config, steps),
        *_copies_advice(config, images, devices),
    ]


def _learning_rate_advice(config: Config) -> Iterator[str]:
    """Bounds of the learning rate that lie above its peak, which alone follows the batch."""
    schedule, peak = config.schedule, peak_learning_rate(config)
    origin = f"optimizer.learning_rate {config.optimizer.learning_rate:g}"
    if config.optimizer.per_images:
        origin += f" x batch {config.training.batch_size} / {config.optimizer.per_images}"
    why = f"its peak {peak:.2g} ({origin}; only the peak follows the batch)"
    start, final = schedule.warmup_learning_rate, schedule.final_learning_rate
    if schedule.warmup_epochs and start > peak:
        yield (
            f"The learning rate falls during warm-up, from {start:g} to {why}; set "
            f"--config.schedule.warmup_learning_rate={_START_SHARE * peak:.1g}."
        )
    if schedule.name in ("cosine", "linear") and final > peak:
        yield (
            f"The learning rate rises after warm-up, from {why} to {final:g}; set "
            f"--config.schedule.final_learning_rate={_FINAL_SHARE * peak:.2g}."
        )


def _average_advice(config: Config, steps: int) -> Iterator[str]:
    """Find a moving average of the weights that is mostly the weights of the start."""
    decay = config.ema.decay
    if not decay or config.ema.warmup or 1 / (1 - decay) <= _AVERAGE_SHARE * steps:
        return
    remedies = [] if config.reference else ["--config.ema.warmup=True"]
    if steps > 10:
        # That looks back over a tenth of the run.
        remedies.append(f"--config.ema.decay={1 - 10 / steps:.3g}")
    remedies.append("--config.ema.decay=0 for none")
    yield (
        f"The moving average of the weights (ema.decay {decay}) looks back over some "
        f"{1 / (1 - decay):,.0f} steps, and the run has {steps:,}: at its end {decay**steps:.0%} "
        "of the average is what the weights were at the start, so do not judge by it; set "
        f"{' or '.join(remedies)}."
    )


def _copies_advice(config: Config, images: int, devices: int) -> Iterator[str]:
    """Mixing groups that must hold copies of one image."""
    options = train_input(config)
    repeats, batch, group = options.data.repeats, options.batch_size, options.mix_group
    if repeats == 1 or not group:
        return
    groups = batch // group
    copies, epochs = repeats, ""
    if images < batch:
        # As many as a batch can touch; each shows an image `repeats` times.
        copies *= ceil((batch - 1) / images) + 1
        epochs = f" and {images} training images are fewer"
    if copies <= groups:
        return
    # A group lies on one device.
    each = batch // devices
    smaller = [g for g in range(2, min(each, batch // copies) + 1, 2) if each % g == 0]
    remedies = [f"--config.mix.group={smaller[-1]}"] if smaller else []
    yield (
        f"Repeated augmentation puts up to {copies} copies of an image into a batch of {batch}"
        f"{epochs}, which has {groups} mixing group(s) of {group}: up to {ceil(copies / groups)} "
        "copies share one mixing draw (none is mixed with itself); set "
        f"{' or '.join([*remedies, '--config.data.repeats=1'])}."
    )
