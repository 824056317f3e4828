"""What a file's own config says of its network: names and shapes of tensors do not tell it all.

A `config.json` of timm or transformers, the arguments in a training checkpoint, or the header of a
file of ours name an architecture and give it options. What follows from them is computed here as
they say, or refused by name (`description.options` has the tables).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from deit_jax.models.registry import find_model, list_models, model_spec
from deit_jax.weights.description.network import HEADER_MODEL, from_header
from deit_jax.weights.formats.any import WeightFile
from deit_jax.weights.published import named_like

CONFIG = "its config.json"
_ARGUMENTS = "the training arguments in it"
# A config of transformers without "model_type", as a class's own from_pretrained takes it.
_OF_TRANSFORMERS = ("model_type", "hidden_size", "hidden_act", "num_attention_heads")

# Names in timm and the reference (LS: DeiT III) of networks that are the registered ones but for
# their sizes; older timm had the data of a training in the name.
_TRANSFORMER = re.compile(
    r"(?:vit_)?deit(?P<third>3)?_(?P<size>tiny|small|medium|base|large|huge)(?:_distilled)?"
    r"_patch\d+_(?:\d+|(?P<scaled>LS)|\d+_in21ft1k)"
    r"|vit_(?P<vit>tiny|small|base|large|huge)_patch\d+_\d+(?:_in21k|_sam|_dino)?"
)
_HEADS = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16}


class NamedTransformer(NamedTuple):
    """What the name of a vision transformer says of it beside what its tensors show."""

    num_heads: int
    deit3: bool


@dataclass(frozen=True)
class Description:
    """What is said of a network.

    Attributes:
        words: whose: "timm", "transformers", "deit_jax" of a run, "" where nothing is said.
        where: it is said, for messages.
        name: of the architecture; of transformers its model type.
        options: beside the name: timm's `model_args` or the configuration of transformers.
    """

    words: str = ""
    where: str = ""
    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def own_words(self) -> bool:
        """Whether a training program chose the name, so that it may be anything."""
        return self.where == _ARGUMENTS


NOTHING = Description()


def describe_weights(file: WeightFile, model: str = "") -> Description:
    """Find what a file, or the `config.json` beside it, says of its network.

    A file that is published is known. Else a config.json counts, then the header of a file of
    ours, then the arguments in a training checkpoint, then a published name.

    Args:
        file: as read.
        model: registered name that someone says; it outweighs a name in training arguments that no
            network is known by.
    """
    if file.published:
        return Description("timm", "its publication", file.published.model)
    config, metadata = file.config, file.metadata
    if isinstance(name := config.get("architecture"), str):
        return Description("timm", CONFIG, _untagged(name), _timm_options(config))
    if any(key in config for key in _OF_TRANSFORMERS) and "config" not in config:
        kind = config.get("model_type", "vit")
        return Description("transformers", CONFIG, str(kind), config)
    if (name := metadata.get(HEADER_MODEL, "")) or from_header(metadata):
        return Description("timm", "its header", name, from_header(metadata))
    if name := metadata.get("arch") or metadata.get("args.model", ""):
        name = _untagged(name)
        if not model or _is_known(name):
            return Description("timm", _ARGUMENTS, name, file.arguments)
    elif named := named_like(file.path):
        return Description("timm", "its name", named.model)
    return NOTHING


def _is_known(name: str) -> bool:
    others = {other for spec in map(model_spec, list_models()) for other in spec.same_tensors}
    return find_model(name) is not None or named_transformer(name) is not None or name in others


def named_transformer(name: str) -> NamedTransformer | None:
    """Read the name that a vision transformer has in timm or here.

    None if it is no name of a network that is computed here.
    """
    if spec := find_model(name):
        sizes = spec.transformer
        return NamedTransformer(sizes.num_heads, sizes.deit3) if sizes else None
    if not (found := _TRANSFORMER.fullmatch(name)):
        return None
    size = found["size"] or found["vit"]
    return NamedTransformer(_HEADS[size], bool(found["third"] or found["scaled"]))


def _untagged(name: str) -> str:
    """Cut off the hub and the tag of pretrained weights, as in `hf_hub:timm/resnet50.a1_in1k`."""
    return name.rpartition("/")[2].partition(".")[0]


def _timm_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's `model_args`; its pooling stands in other places, too."""
    found: dict[str, Any] = {}
    for place in (config, config.get("pretrained_cfg"), config.get("model_args")):
        if isinstance(place, Mapping) and place.get("global_pool") is not None:
            found["global_pool"] = place["global_pool"]
    given = config.get("model_args")
    return found | (dict(given) if isinstance(given, Mapping) else {})
