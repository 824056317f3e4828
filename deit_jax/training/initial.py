"""Starting a run from weights instead of a fresh initialisation: fine-tuning."""

from ml_collections import ConfigDict

from deit_jax.training.state import TrainState
from deit_jax.weights.adapt import Fitted
from deit_jax.weights.load import fit_weights
from deit_jax.weights.reading import read_weights


def load_initial(config: ConfigDict, abstract_state: TrainState) -> Fitted | None:
    """Read `config.model.weights` and fit it to the model; None if the key is empty.

    Args:
        config: of the run.
        abstract_state: shapes of its state.

    Raises:
        FileNotFoundError, ValueError: the weights are not there, damaged, or do not fit.
    """
    path = config.model.weights
    if not path:
        return None
    try:
        return fit_weights(
            read_weights(path),
            (abstract_state["params"], abstract_state["batch_stats"]),
            tuple(config.model.image_size),
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"config.model.weights: {error}") from error
    except ValueError as error:
        raise ValueError(f"config.model.weights: {error}") from error
