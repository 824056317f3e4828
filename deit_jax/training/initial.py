"""Starting a run from weights instead of a fresh initialisation: fine-tuning."""

import logging
from collections.abc import Sequence

from deit_jax.runs.open_weights import read_weights
from deit_jax.schema import Config
from deit_jax.training.state import TrainState
from deit_jax.weights.description.network import registered
from deit_jax.weights.fit import Fitted
from deit_jax.weights.load import fit_weights
from deit_jax.weights.reading import Weights

_LOG = logging.getLogger("deit_jax")


def load_initial(
    config: Config, abstract_state: TrainState, class_names: Sequence[str] = ()
) -> Fitted | None:
    """Read `config.model.weights` and fit it to the model; None if the key is empty.

    Args:
        config: of the run.
        abstract_state: shapes of its state.
        class_names: of its data.

    Raises:
        FileNotFoundError, ValueError: the weights are not there, damaged, or do not fit.
    """
    path = config.model.weights
    if not path:
        return None
    try:
        weights = read_weights(path, like=config.model.name)
        _warn(config, weights, class_names)
        return fit_weights(
            weights,
            (abstract_state["params"], abstract_state["batch_stats"]),
            config.model.image_size,
            registered(config.model.name, config.model.num_heads),
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.model.weights: {error}") from error
    except ValueError as error:
        raise ValueError(f"config.model.weights: {error}") from error


def _warn(config: Config, weights: Weights, class_names: Sequence[str]) -> None:
    """Say what of the start is made for something else; training gets over it, in time."""
    known = weights.facts.labels
    if known and class_names and len(known) == len(class_names) and known != tuple(class_names):
        _LOG.warning(
            "The heads of %s are for other classes, or the same in another order (its first is "
            "%r, here it is %r): they are what training starts from all the same.",
            weights.source,
            known[0],
            class_names[0],
        )
    shown = weights.facts.preprocessing
    own, here = (shown.mean, shown.std), (tuple(config.augment.mean), tuple(config.augment.std))
    if "normalisation" not in shown.assumed and own != here:
        _LOG.warning(
            "%s was trained on images normalised with mean %s and standard deviation %s, this run "
            "has %s and %s: --config.augment.mean=%s --config.augment.std=%s shows it what it "
            "knows.",
            weights.source,
            *map(_listed, (*own, *here, *own)),
        )


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
