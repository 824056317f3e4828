"""What to set so that a run fits into the memory of its devices."""

from dataclasses import replace

from deit_jax.scale.memory_plan import Settings, Workload


def remedies(work: Workload, now: Settings, limit: int) -> list[str]:
    """Return what to set, each alone, so that a run fits into a device's memory.

    Args:
        work: of the run.
        now: its settings, with which it does not fit.
        limit: bytes of a device.

    Returns:
        Flags; of each key the change that costs least, and both of fsdp and remat where one is not
        enough. Where nothing alone suffices, all together; empty where not even that does.
    """
    choices = _choices(work, now)

    def first(settings: list[Settings]) -> Settings | None:
        return next((s for s in settings if work.plan(s).total <= limit), None)

    found = {key: first(each) for key, each in choices.items()}
    alone = [_flag(key, settings) for key, settings in found.items() if settings]
    both = ("mesh.fsdp", "training.remat")
    if not any(found[key] for key in both) and all(choices[key] for key in both):
        # Neither touches the batch or its slices.
        together = first([replace(split, remat="blocks") for split in choices["mesh.fsdp"]])
        if together:
            alone.insert(0, " ".join(_flag(key, together) for key in both))
    if alone:
        return alone
    last = replace(now, batch=now.devices * now.micro_batches, fsdp=now.devices)
    last = replace(last, remat="blocks" if work.blocks else "none")
    keys = [key for key, each in choices.items() if each and key != "training.micro_batches"]
    return [" ".join(_flag(key, last) for key in keys)] if first([last]) else []


def _choices(work: Workload, now: Settings) -> dict[str, list[Settings]]:
    """Return by key what could be set instead, that which changes least first."""
    each = now.batch // now.devices
    slices = [n for n in range(now.micro_batches + 1, each + 1) if each % n == 0]
    splits = [n for n in range(now.fsdp + 1, now.devices + 1) if now.devices % n == 0]
    smaller = [n for n in range(each - 1, 0, -1) if n % now.micro_batches == 0]
    # Convnets have no blocks, and BatchNorm's statistics are of the whole batch.
    blocks = work.blocks > 0
    return {
        "mesh.fsdp": [replace(now, fsdp=n) for n in splits],
        "training.remat": [replace(now, remat="blocks")] * (blocks and now.remat == "none"),
        "training.micro_batches": [replace(now, micro_batches=n) for n in slices] * blocks,
        "training.batch_size": [replace(now, batch=n * now.devices) for n in smaller],
    }


def _flag(key: str, settings: Settings) -> str:
    value = {
        "mesh.fsdp": settings.fsdp,
        "training.remat": settings.remat,
        "training.micro_batches": settings.micro_batches,
        "training.batch_size": settings.batch,
    }[key]
    return f"--config.{key}={value}"
