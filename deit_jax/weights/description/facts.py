"""What is known about weights besides values and network: preprocessing, classes, accuracy."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, get_args

from deit_jax.preprocessing import (
    ASSUMED,
    CROP_RATIO,
    INTERPOLATIONS,
    MEAN,
    STD,
    Arithmetic,
    EvalView,
    Fit,
    Preprocessing,
    Ratio,
)
from deit_jax.weights.description.image_processor import (
    is_whole,
    of_timm,
    of_transformers,
    to_timm,
)
from deit_jax.weights.formats.any import WeightFile
from deit_jax.weights.published import PublishedFile, named_like

_KEY = "deit_jax."
_IMAGENET = "imagenet-1k"
_VIEW = {
    "fit": get_args(Fit),
    "interpolation": INTERPOLATIONS,
    "arithmetic": get_args(Arithmetic),
}


@dataclass(frozen=True)
class Facts:
    """What a file says of its weights; the reference's values where it says nothing.

    Attributes:
        image_size: (height, width) in pixels, or None.
        preprocessing: how they want their images.
        labels: names of the classes by index, if they are known.
        imagenet: whether the classes are known to be ImageNet's thousand, ordered by synset.
        notes: sentences for people.
    """

    image_size: tuple[int, int] | None = None
    preprocessing: Preprocessing = ASSUMED
    labels: tuple[str, ...] = ()
    imagenet: bool = False
    notes: tuple[str, ...] = ()

    def metadata(self) -> dict[str, str]:
        """Return the facts as texts, as they are stored in files of ours; nothing assumed."""
        shown, view = self.preprocessing, self.preprocessing.view
        texts = {"image_size": _join(self.image_size or ())}
        if self.labels:
            texts["class_names"] = json.dumps(self.labels)
        if self.imagenet:
            texts["classes"] = _IMAGENET
        if "normalisation" not in shown.assumed:
            texts |= {"mean": _join(shown.mean), "std": _join(shown.std)}
        if "crop" not in shown.assumed:
            ratios = view.crop_ratio if len(set(view.crop_ratio)) > 1 else view.crop_ratio[:1]
            texts["crop_ratio"] = _join(ratios)
            texts |= {key: getattr(view, key) for key in _VIEW}
            texts["fill"] = _join(view.fill)
        return {_KEY + key: text for key, text in texts.items() if text}


def facts_of_file(file: WeightFile) -> Facts:
    """Collect what a file, its header and the descriptions beside it say.

    Later sources win: training arguments, the header of a file of ours, config.json,
    preprocessor_config.json, and that the file is one whose content is known.
    """
    config, header = _of_config(file.config), _of_header(file.metadata)
    known = _of_arguments(file.metadata) | header | _beside_header(config, header)
    notes = []
    if prefix := file.metadata.get("stripped_prefix"):
        notes.append(f"The prefix {prefix!r} was cut off the names.")
    if file.preprocessor:
        known |= of_transformers(file.preprocessor, str(file.config.get("model_type", "")))
        known["remark"] = _another_size(known.pop("output", None), known)
    if entry := file.published or named_like(file.path):
        size = entry.input_size
        known |= {"image_size": (size, size), "imagenet": True}
        known |= {"mean": entry.mean, "std": entry.std, "view": EvalView.keeping(entry.crop_ratio)}
    if file.published:
        known |= {"refused": "", "remark": ""}
        notes.append(_verified(file.published, file.sha256))
    elif entry:
        notes.append(
            f"Named like the published {entry.file} ({entry.top1} % top-1 on ImageNet at {size} "
            "pixels); its authors give no hash, so that the content cannot be verified."
        )
    return Facts(preprocessing=_preprocessing(known), **known, notes=tuple(notes))


def _preprocessing(known: dict[str, Any]) -> Preprocessing:
    """Take what is known of preprocessing out of what is known."""
    pieces = ("mean", "std", "view", "refused", "remark")
    stated = {key: known.pop(key) for key in pieces if key in known}
    needs = {"normalisation": ("mean", "std"), "crop": ("view",)}
    assumed = [part for part, keys in needs.items() if not all(key in stated for key in keys)]
    return Preprocessing(**stated, assumed=tuple(assumed))


def _another_size(output: tuple[int, int] | None, known: dict[str, Any]) -> str:
    """Return a sentence if images are made for another size; set the size if nothing else did."""
    size: Any = known.setdefault("image_size", output)
    if output is None or output == size:
        return ""
    return (
        f"Its preprocessor_config.json makes images of {output[0]}x{output[1]} pixels, but the "
        f"network takes {size[0]}x{size[1]}: the same share of an image is shown at that size."
    )


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
    texts = {key.removeprefix(_KEY): text for key, text in metadata.items() if key.startswith(_KEY)}
    found: dict[str, Any] = {}
    try:
        for key, kind, count in (("image_size", int, 2), ("mean", float, 3), ("std", float, 3)):
            if text := texts.get(key):
                found[key] = _split(text, kind, count)
        if "crop_ratio" in texts:
            found |= {"view": _view_of_header(texts), "refused": ""}
        if text := texts.get("class_names"):
            found["labels"] = _labels({"label_names": json.loads(text)})
        if not all(map(is_whole, found.get("image_size", ()))):
            raise ValueError("no size of an image")
    except (ValueError, ZeroDivisionError, RecursionError):
        return {}
    if texts.get("classes") == _IMAGENET:
        found["imagenet"] = True
    return found


def _view_of_header(texts: Mapping[str, str]) -> EvalView:
    ratios = [
        Fraction(part) if "/" in part else float(part) for part in texts["crop_ratio"].split()
    ]
    options: dict[str, Any] = {key: texts[key] for key in _VIEW if key in texts}
    if len(ratios) not in (1, 2) or any(options[key] not in _VIEW[key] for key in options):
        raise ValueError("an unknown view")
    if fill := texts.get("fill"):
        options["fill"] = _split(fill, int, 3)
    return EvalView((ratios[0], ratios[-1]), **options)


def _beside_header(config: dict[str, Any], header: dict[str, Any]) -> dict[str, Any]:
    """Leave out of a config.json what the header of the file beside it says more exactly.

    That is the view as it was written from the header's: timm's words have neither the exact ratio
    nor the arithmetic.
    """
    said = dict(config)
    if "view" in said and header.keys() >= {"view", "image_size"}:
        shown = {key: header[key] for key in ("view", "mean", "std") if key in header}
        try:
            written = of_timm(to_timm(Preprocessing(**shown), header["image_size"]))
        except ValueError:
            return said
        if written.get("view") == said["view"]:
            del said["view"]
    return said


def _of_arguments(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read the arguments in a training checkpoint of the reference or of timm."""
    found: dict[str, Any] = {}
    size = metadata.get("args.input_size", "")
    if size.isdecimal() and int(size):
        found["image_size"] = (int(size), int(size))
    if "args.data_set" in metadata:
        # The reference's alone, which has one normalisation for all data sets (datasets.py).
        found |= {"mean": MEAN, "std": STD, "view": EvalView.keeping(CROP_RATIO)}
    ratio = metadata.get("args.eval_crop_ratio") or metadata.get("args.crop_pct")
    # Text that is no number, such as "None", says nothing.
    with contextlib.suppress(ValueError):
        if ratio and float(ratio) > 0:
            found["view"] = EvalView.keeping(float(ratio))
    return found


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Read a `config.json` of timm's or transformers' layout; our runs' says nothing here."""
    found: dict[str, Any] = {}
    details = config.get("pretrained_cfg", config)
    if not isinstance(details, Mapping):
        return found
    size = details.get("input_size", config.get("image_size"))
    if isinstance(arguments := config.get("model_args"), Mapping) and "img_size" in arguments:
        size = arguments["img_size"]
    if isinstance(size, int):
        size = (size, size)
    if isinstance(size, list | tuple) and len(size) in (2, 3) and all(map(is_whole, size)):
        # timm has the channels first.
        found["image_size"] = tuple(size[-2:])
    found |= of_timm(details)
    if labels := _labels(config):
        found["labels"] = labels
    return found


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


def _split(text: str, kind: Callable[[str], Any], count: int) -> tuple[Any, ...]:
    """Return so many numbers; a ValueError if they are more or fewer."""
    numbers = tuple(map(kind, text.split()))
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers in place of {count}")
    return numbers


def _join(values: Sequence[Ratio]) -> str:
    """Return numbers as text that gives the same numbers again."""
    return " ".join(str(v) if isinstance(v, Fraction) else repr(v) for v in values)
