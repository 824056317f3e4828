"""Options of streams for tests: what is not given is as plain as it can be."""

from typing import Any

from deit_jax.data.stream.options import EvalInput, TrainInput
from deit_jax.preprocessing import ASSUMED, EvalView
from deit_jax.schema.images import DataOptions


def train_input(
    image_size: tuple[int, int], batch_size: int, mix_group: int = 0, seed: int = 0, **keys: Any
) -> TrainInput:
    """Training without repeats, unless `keys` of `config.data` say so."""
    return TrainInput(
        image_size=image_size,
        batch_size=batch_size,
        data=DataOptions(**{"repeats": 1} | keys),
        mix_group=mix_group,
        seed=seed,
    )


def eval_input(
    image_size: tuple[int, int], batch_size: int, view: EvalView = ASSUMED.view, **keys: Any
) -> EvalInput:
    """Evaluation, with `keys` of `config.data`."""
    return EvalInput(
        image_size=image_size, batch_size=batch_size, data=DataOptions(**keys), view=view
    )
