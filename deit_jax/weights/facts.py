"""What is known about weights besides their values: model, image size, normalisation, accuracy."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from deit_jax.models.layers import LAYER_NORM_EPSILON
from deit_jax.weights.files import WeightFile
from deit_jax.weights.published import PublishedFile, named_like

# The normalisation and evaluation crop that the reference trains and evaluates with.
MEAN, STD, CROP_RATIO = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875

_KEY = "deit_jax."


@dataclass(frozen=True)
class Facts:
    """What a file says of its weights; the reference's values where it says nothing.

    Attributes:
        model: registered name, or another project's, or "".
        image_size: (height, width) in pixels, or None.
        mean, std: of the normalisation, for pixels in [0, 1].
        crop_ratio: evaluation resizes the shorter side to size / ratio, then crops the centre.
        labels: names of the classes by index, if they are known.
        notes: sentences for people.
    """

    model: str = ""
    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    crop_ratio: float = CROP_RATIO
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def of(self, model: str, image_size: tuple[int, int]) -> "Facts":
        """Return these facts about a model and image size."""
        return replace(self, model=model, image_size=image_size)

    def metadata(self) -> dict[str, str]:
        """Return the facts as texts, as they are stored in files of ours."""
        numbers = {"image_size": self.image_size or (), "mean": self.mean, "std": self.std}
        texts = {key: " ".join(map(repr, value)) for key, value in numbers.items()}
        texts |= {"model": self.model, "crop_ratio": repr(self.crop_ratio)}
        return {_KEY + key: text for key, text in texts.items() if text}


def facts_of_file(file: WeightFile) -> Facts:
    """Collect what a file, its header and the `config.json` beside it say.

    Later sources win: training arguments, config.json, the header of a file of ours, and that the
    file is one whose content is known.
    """
    known = _of_arguments(file.metadata) | _of_config(file.config) | _of_header(file.metadata)
    notes = []
    if prefix := file.metadata.get("stripped_prefix"):
        notes.append(f"The prefix {prefix!r} was cut off all names.")
    epsilon = file.config.get("layer_norm_eps", LAYER_NORM_EPSILON)
    if epsilon != LAYER_NORM_EPSILON:
        notes.append(
            f"Its config.json says layer_norm_eps={epsilon}; computed with {LAYER_NORM_EPSILON}, "
            "with which DeiT was trained."
        )
    if file.published:
        size = file.published.input_size
        known |= {"model": file.published.model, "image_size": (size, size)}
        known |= {"mean": MEAN, "std": STD, "crop_ratio": CROP_RATIO}
        notes.append(_verified(file.published, file.sha256))
    elif named := named_like(file.path):
        size = named.input_size
        known |= {"model": named.model, "image_size": (size, size)}
        known |= {"mean": MEAN, "std": STD, "crop_ratio": size / named.resize}
        notes.append(
            f"Named like the published {named.file} ({named.top1} % top-1 on ImageNet at {size} "
            "pixels); its authors give no hash, so that the content cannot be verified."
        )
    return Facts(**known, notes=tuple(notes))


def _verified(published: PublishedFile, sha256: str) -> str:
    sentence = f"Verified: this is the published {published.file} (SHA-256 {sha256[:8]}...)."
    if published.top1 is None:
        return sentence
    return (
        f"{sentence} Its authors report {published.top1} % top-1, {published.top5} % top-5 and "
        f"loss {published.loss} on ImageNet at {published.input_size} pixels."
    )


def _of_header(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read what `Facts.metadata` has written; what cannot be understood was not."""
    found: dict[str, Any] = {}
    try:
        for key, kind in (("image_size", int), ("mean", float), ("std", float)):
            if text := metadata.get(_KEY + key):
                found[key] = tuple(map(kind, text.split()))
        if text := metadata.get(_KEY + "crop_ratio"):
            found["crop_ratio"] = float(text)
    except ValueError:
        return {}
    if name := metadata.get(_KEY + "model"):
        found["model"] = name
    return found


def _of_arguments(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read the arguments in a training checkpoint of the reference or of timm."""
    found: dict[str, Any] = {}
    if name := metadata.get("args.model") or metadata.get("arch"):
        found["model"] = name
    size = metadata.get("args.input_size", "")
    if size.isdigit():
        found["image_size"] = (int(size), int(size))
    return found


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read a `config.json` of timm's or transformers' layout; our runs' says nothing here."""
    found: dict[str, Any] = {}
    if isinstance(name := config.get("architecture"), str):
        found["model"] = name.partition(".")[0]
    details = config.get("pretrained_cfg", config)
    if not isinstance(details, Mapping):
        return found
    size = details.get("input_size", config.get("image_size"))
    if isinstance(arguments := config.get("model_args"), Mapping) and "img_size" in arguments:
        size = arguments["img_size"]
    if isinstance(size, int):
        size = (size, size)
    if _numbers(size, int) and len(size) in (2, 3):
        # timm has the channels first.
        found["image_size"] = tuple(size[-2:])
    for key in ("mean", "std"):
        values: Any = details.get(key)
        if _numbers(values, int | float) and len(values) == 3:
            found[key] = tuple(float(value) for value in values)
    if isinstance(ratio := details.get("crop_pct"), int | float) and 0 < ratio <= 1:
        found["crop_ratio"] = float(ratio)
    if labels := _labels(config):
        found["labels"] = labels
    return found


def _numbers(value: Any, kind: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes, from transformers' id2label or timm's label_names."""
    names: Any = config.get("label_names") or config.get("id2label")
    if isinstance(names, Mapping):
        names = [names.get(str(index)) for index in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    if names == [f"LABEL_{index}" for index in range(len(names))]:
        # What transformers writes where it knows no names.
        return ()
    return tuple(names)
