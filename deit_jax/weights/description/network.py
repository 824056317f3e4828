"""What tensors do not show of the network they are of, and whether two networks are the same.

Nothing in a transformer's tensors says how many heads its attention has, nor what is added to the
variance in its normalisations; and the tensors of an `efficientnet` are those of a
`tf_efficientnet`. Weights carry this beside their values.
"""

from dataclasses import dataclass
from typing import Any, cast

from deit_jax.models.layer_norm import LAYER_NORM_EPSILON
from deit_jax.models.registry import find_model

SMALL_EPSILON = 1e-6
"""Up to here another epsilon is told and not refused where weights only start a network: published
directories of transformers say 1e-12 of weights that were trained with 1e-6."""

HEADER_MODEL = "deit_jax.model"
_KEYS = {"num_heads": "deit_jax.num_heads", "epsilon": "deit_jax.layer_norm_epsilon"}


@dataclass(frozen=True)
class Network:
    """A network, as far as its tensors do not show it.

    Attributes:
        name: registered name; "" for a transformer of sizes that are not registered.
        num_heads: of the attention; 0 for convnets, or where nothing says it.
        epsilon: added to the variance in layer normalisation.
    """

    name: str
    num_heads: int = 0
    epsilon: float = LAYER_NORM_EPSILON

    def options(self) -> dict[str, Any]:
        """Return what `model_builder` needs beside the name."""
        return {"num_heads": self.num_heads, "epsilon": self.epsilon} if self.num_heads else {}

    def metadata(self) -> dict[str, str]:
        """Return texts for the header of a file; `describe_weights` reads them."""
        texts = {HEADER_MODEL: self.name} if self.name else {}
        return texts | {_KEYS[option]: repr(value) for option, value in self.options().items()}

    def unlike_registered(self) -> str:
        """Return in words how it differs from the registered network of its name, or ""."""
        own = registered(self.name)
        if self.num_heads and self.num_heads != own.num_heads:
            return f"{self.num_heads} attention heads"
        if max(self.epsilon, own.epsilon) > SMALL_EPSILON and self.epsilon != own.epsilon:
            return f"layer_norm_eps={self.epsilon}"
        return ""


def from_header(metadata: dict[str, str]) -> dict[str, Any]:
    """Read the options that `Network.metadata` has written; what cannot be understood was not."""
    try:
        heads, epsilon = (metadata.get(_KEYS[option]) for option in ("num_heads", "epsilon"))
        found: dict[str, Any] = {"num_heads": int(heads)} if heads else {}
        return found | ({"epsilon": float(epsilon)} if epsilon else {})
    except ValueError:
        return {}


def registered(name: str, num_heads: int = 0) -> Network:
    """Return the network that `model_builder` builds by a name, with other heads if not 0."""
    spec = find_model(name)
    return Network(name, num_heads or (spec.num_heads if spec else 0))


def network_of(model: Any) -> Network:
    """Return the network of a live model; the name is "" if `model_builder` did not build it."""
    return Network(
        getattr(model, "model_name", ""),
        getattr(model, "num_heads", 0),
        cast(float, getattr(model, "epsilon", LAYER_NORM_EPSILON)),
    )


def network_difference(source: str, weights: Network, model: Network) -> str:
    """Return a note on how a model differs from the network its weights are described as, or "".

    Args:
        source: where the weights are from.
        weights: as their file describes it.
        model: that shall take them; of the same shapes.

    Raises:
        ValueError: it would compute something else from the same tensors.
    """
    spec = find_model(weights.name)
    if spec and model.name in spec.same_tensors:
        raise ValueError(
            f"{source} is of {weights.name}, and {model.name} computes something else from the "
            f"same tensors; load it into {weights.name}."
        )
    if weights.num_heads and model.num_heads and weights.num_heads != model.num_heads:
        raise ValueError(
            f"{source} is of a network with {weights.num_heads} attention heads, and the model has "
            f"{model.num_heads}; build it with num_heads={weights.num_heads} (in a run "
            f"--config.model.num_heads={weights.num_heads})."
        )
    if not weights.num_heads or weights.epsilon == model.epsilon:
        return ""
    if max(weights.epsilon, model.epsilon) > SMALL_EPSILON:
        raise ValueError(
            f"{source} is of a network with layer_norm_eps={weights.epsilon}, and the model has "
            f"{model.epsilon}; build it with epsilon={weights.epsilon}."
        )
    return (
        f"The weights are described with layer_norm_eps={weights.epsilon}; this model computes "
        f"with {model.epsilon}."
    )
