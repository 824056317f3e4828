"""What a file's own config says of its network: names and shapes of tensors do not tell it all.

A `config.json` of timm or transformers, the arguments in a training checkpoint, or the header of a
file of ours name an architecture and give it options. What follows from them is computed here as
they say, or refused by name (`weights.options` has the table).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deit_jax.models.registry import list_models, model_spec
from deit_jax.weights.description.network import from_header
from deit_jax.weights.formats.any import WeightFile
from deit_jax.weights.published import named_like

CONFIG = "its config.json"
_ARGUMENTS = "the training arguments in it"
# A config of transformers without "model_type", as a class's own from_pretrained takes it.
_OF_TRANSFORMERS = ("model_type", "hidden_size", "hidden_act", "num_attention_heads")

# Names in timm and the reference (LS: DeiT III) of networks that are the registered ones but for
# their sizes; older timm had the data of a training in the name.
_TRANSFORMER = re.compile(
    r"(?:vit_)?deit3?_(tiny|small|medium|base|large|huge)(?:_distilled)?_patch\d+"
    r"_(?:\d+|LS|\d+_in21ft1k)"
    r"|vit_(tiny|small|base|large|huge)_patch\d+_\d+(?:_in21k|_sam|_dino)?"
)
_HEADS = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16}
# And of convnets: timm's older names, torchvision's of RegNetY.
_CONVNETS = (
    (re.compile(r"(?:tv|ssl|swsl)_(resnet\d+)|gluon_(resnet\d+)_v1b"), "{}"),
    (re.compile(r"(tf_efficientnet_b\d)_(?:ap|ns|aa)"), "{}"),
    (re.compile(r"(efficientnet_b[23])a"), "{}"),
)
_TORCHVISION = {
    "regnet_y_8gf": "regnety_080_tv",
    "regnet_y_16gf": "regnety_160",
    "regnet_y_32gf": "regnety_320",
}

SAME_TENSORS = {
    "resnet50": ("resnetaa50", "resnetblur50"),
    "efficientnet_b0": ("tf_efficientnet_b0", "efficientnet_blur_b0"),
    **{f"efficientnet_b{i}": (f"tf_efficientnet_b{i}",) for i in (3, 4, 7)},
}
"""Networks of timm 1.0.31 that have all tensors, names and shapes, of one that is registered."""


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
    if (name := metadata.get("deit_jax.model", "")) or from_header(metadata):
        return Description("timm", "its header", name, from_header(metadata))
    if name := metadata.get("arch") or metadata.get("args.model", ""):
        name = _untagged(name)
        if not model or _is_known(name):
            return Description("timm", _ARGUMENTS, name, file.arguments)
    elif named := named_like(file.path):
        return Description("timm", "its name", named.model)
    return NOTHING


def _is_known(name: str) -> bool:
    others = {other for group in SAME_TENSORS.values() for other in group}
    return default_heads(name) is not None or registered_convnet(name) in {*list_models(), *others}


def registered_convnet(name: str) -> str:
    """Return the registered name of what is called a convnet elsewhere; else the name itself."""
    for pattern, ours in _CONVNETS:
        if found := pattern.fullmatch(name):
            return ours.format(*filter(None, found.groups()))
    return _TORCHVISION.get(name, name)


def default_heads(name: str) -> int | None:
    """Return the heads of a vision transformer by the name it has in timm or here.

    None if it is no name of a network that is computed here.
    """
    if name in list_models():
        return getattr(model_spec(name).build, "keywords", {}).get("num_heads")
    found = _TRANSFORMER.fullmatch(name)
    return _HEADS[next(filter(None, found.groups()))] if found else None


def positions_for_patches_only(name: str) -> bool:
    """Return whether a transformer of this name has no position embedding for its class token."""
    return name.startswith("deit3") or name.endswith("_LS")


def same_tensors(name: str) -> tuple[str, ...]:
    """Return the other networks that a file with the tensors of a registered one may be of."""
    group = {name.removeprefix("tf_"), *SAME_TENSORS.get(name.removeprefix("tf_"), ())}
    return tuple(sorted(group - {name}))


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
