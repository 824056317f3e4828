"""What the networks see of a few training images of a run, for people to look at."""

import contextlib
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from deit_jax.augment.normalise import to_levels
from deit_jax.config.keys import leaves_by_key
from deit_jax.data.source import Source
from deit_jax.data.stream.loader import train_batches
from deit_jax.schema import RULES, Config
from deit_jax.sheets import SeenImages
from deit_jax.training.distillation.teacher import Teacher, load_teacher
from deit_jax.training.example import ask, make_prepare
from deit_jax.training.setup import open_train_source, train_input, with_classes


def see_first_batch(config: Mapping[str, Any], count: int, teacher: str = "") -> SeenImages:
    """Read the first batch of a run once more; return some of it as the networks saw it.

    Args:
        config: of the run, complete; keys of the past are ignored.
        count: images.
        teacher: where its weights are now, if not where the configuration says.

    Raises:
        ValueError, OSError, ModuleNotFoundError: data or teacher are not there.
    """
    options = _known(config)
    source = open_train_source(options)
    options = with_classes(options, source)
    if teacher:
        options = dataclasses.replace(
            options, teacher=dataclasses.replace(options.teacher, weights=teacher)
        )
    asked = load_teacher(options, source.class_names)
    with train_batches(source, train_input(options), num_steps=1) as batches:
        batch = next(batches)
    return see(batch, source, options, count, asked)


def see(
    batch: Mapping[str, Any],
    source: Source,
    config: Config,
    count: int,
    teacher: Teacher | None = None,
) -> SeenImages:
    """Return some images of a whole batch as the networks see them, to the bit.

    Args:
        batch: of the stream, on the host or on one process's devices.
        source: that it is of.
        config: of the run.
        count: images; fewer if the batch or whole mixing groups have no more.
        teacher: is asked about them.
    """
    rows, group = rows_that_mix(len(batch["label"]), config.mix.group, count)
    few = {name: np.asarray(values[np.asarray(rows)]) for name, values in batch.items()}
    config = dataclasses.replace(config, mix=dataclasses.replace(config.mix, group=group))
    example = jax.jit(make_prepare(config))(few)
    answers = None
    if teacher:
        logits = jax.jit(partial(ask, teacher.function))(teacher.params, example.images)
        answers = np.asarray(jax.nn.softmax(logits))
    augment = config.augment
    return SeenImages(
        tuple(_name(source, index) for index in few["index"].tolist()),
        tuple(few["label"].tolist()),
        source.class_names,
        few["image"],
        to_levels(np.asarray(example.images), augment.mean, augment.std),
        np.asarray(example.targets),
        answers,
    )


def rows_that_mix(batch: int, group: int, count: int) -> tuple[list[int], int]:
    """Return rows of a batch that are mixed with each other alone, and the group they are mixed in.

    An image is mixed with the one as far from the other end of its group, as the draws of the
    first half of a group say; so both ends of a group mix as they do within the whole.

    Args:
        batch: images in it.
        group: `mix.group`; larger than the batch only where nothing is mixed.
        count: images that are wanted.
    """
    size = min(group, batch) or batch
    if size > count:
        half = max(1, count // 2)
        return [*range(half), *range(size - half, size)], 0
    return list(range(min(batch, count // size * size))), size


def _known(config: Mapping[str, Any]) -> Config:
    """Return the configuration without keys that no longer exist."""
    nested: dict[str, Any] = {}
    for key, value in leaves_by_key(config).items():
        if key in RULES:
            *groups, name = key.split(".")
            place = nested
            for part in groups:
                place = place.setdefault(part, {})
            place[name] = value
    return Config.of(nested)


def _name(source: Source, index: int) -> str:
    with contextlib.suppress(Exception):
        return source[index].name
    # Damaged: the stream has another image in its place.
    return f"{source.name}[{index}]"
