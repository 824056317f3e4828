"""Preprocessing as timm's and transformers' own files describe it.

What is read is what their programs do with it, defaults included: of timm `resolve_data_config` and
`transforms_imagenet_eval` (timm/data), of transformers the image processors of ViT, DeiT, BiT, CLIP
and ConvNeXT, all of which one finds beside vision transformers.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from deit_jax.preprocessing import (
    CROP_RATIO,
    INTERPOLATIONS,
    MEAN,
    EvalView,
    Preprocessing,
    Size,
)

_HALF = (0.5, 0.5, 0.5)
_CLIP = {
    "size": {"shortest_edge": 224},
    "crop_size": 224,
    "do_center_crop": True,
    "resample": 3,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ViT": {"size": 224, "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "DeiT": {
        "size": 256,
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
        # The values of the Inception networks, although DeiT was trained with ImageNet's.
        "image_mean": _HALF,
        "image_std": _HALF,
    },
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "ConvNext": {
        "size": {"shortest_edge": 384},
        "crop_pct": 224 / 256,
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
}
# Where a number alone is the shorter side.
_SHORTEST = ("Bit", "CLIP", "ConvNext")
_BY_MODEL = {"vit": "ViT", "deit": "DeiT"}


def of_timm(details: Mapping[str, Any]) -> dict[str, Any]:
    """Read timm's `pretrained_cfg`: what it says of "mean", "std" and "view", or "refused".

    The sizes and crops it gives for tests at another resolution are left alone, as timm does unless
    asked.
    """
    found: dict[str, Any] = {}
    for key, read in (("mean", _colour), ("std", _deviation)):
        if details.get(key) is None:
            continue
        if not (colour := read(details[key])):
            says = f"Its config.json says {key}={details[key]!r}"
            return {"refused": f"{says}, which cannot be done here."}
        found[key] = colour
    ratio, mode = details.get("crop_pct"), details.get("crop_mode") or "center"
    interpolation = details.get("interpolation") or "bicubic"
    if not any(details.get(key) for key in ("crop_pct", "crop_mode", "interpolation")):
        return found
    if mode not in ("center", "squash", "border") or interpolation not in INTERPOLATIONS:
        return found | {
            "refused": f"Its config.json says crop_mode={mode!r} and interpolation="
            f"{interpolation!r}, which cannot be done here."
        }
    keep = float(ratio) if ratio and _positive(ratio) else CROP_RATIO
    fit = {"center": "cover", "squash": "exact", "border": "inside"}[mode]
    options: dict[str, Any] = {"interpolation": interpolation, "arithmetic": "timm"}
    if fit == "inside":
        options["fill"] = tuple(round(255 * value) for value in found.get("mean", MEAN))
    return found | {"view": EvalView.keeping(keep, fit=fit, **options)}


def of_transformers(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Read a `preprocessor_config.json`: "mean", "std", "view", "output" and "refused".

    Args:
        config: what it holds.
        model_type: of the `config.json` beside it, where it does not say whose processor it is.

    Returns:
        "output" is the (height, width) of its images in pixels, None for those of any size.
    """
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    name = name.removesuffix("Pil").removesuffix("Fast")
    kind = name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    kind = kind or _BY_MODEL.get(model_type, "")
    try:
        if kind not in _DEFAULTS:
            raise _CannotDo(f"is of {name or 'an unnamed processor'}")
        # A value of null is the default.
        given = {key: value for key, value in config.items() if value is not None}
        return _of_processor(kind, _DEFAULTS[kind] | given)
    except _CannotDo as reason:
        return {"refused": f"Its preprocessor_config.json {reason}, which cannot be done here."}


def to_timm(shown: Preprocessing, size: Size) -> dict[str, Any]:
    """Return what timm's `pretrained_cfg` says of preprocessing; `of_timm` reads it back.

    Raises:
        ValueError: timm has no such view.
    """
    view = shown.view
    modes = {"cover": "center", "exact": "squash", "inside": "border"}
    sides = view.sides(size)
    # Of one ratio timm takes floor(side / ratio).
    ratios = [float(view.crop_ratio[0]), size[0] / (sides[0] + 0.5)]
    fits = [r for r in ratios if (int(size[0] / r), int(size[1] / r)) == sides]
    if view.fit not in modes or not fits:
        raise ValueError(
            f"timm cannot be told to resize images ({view.fit}) to {sides[0]}x{sides[1]} and keep "
            f"{size[0]}x{size[1]} pixels; write a .safetensors file or the layout transformers."
        )
    return {
        "interpolation": view.interpolation,
        "crop_pct": fits[0],
        "crop_mode": modes[view.fit],
        "mean": list(shown.mean),
        "std": list(shown.std),
    }


def to_transformers(shown: Preprocessing, size: Size) -> dict[str, Any] | None:
    """Return a `preprocessor_config.json`; None if transformers has no such view.

    Its processors cut half margins off where torchvision rounds them to even, so that one image in
    four that is no square is cut out one pixel further up or left.
    """
    view, sides = shown.view, shown.view.sides(size)
    height, width = size
    resized: dict[str, int] = {"height": sides[0], "width": sides[1]}
    # Of all releases of transformers these classes take the one and the other form of a size.
    kind = "DeiTImageProcessor"
    if view.fit == "cover":
        kind, resized = "BitImageProcessor", {"shortest_edge": sides[0]}
    if view.fit == "inside" or (view.fit == "cover" and sides[0] != sides[1]):
        return None
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": view.fit != "none",
        "size": resized,
        "resample": INTERPOLATIONS.index(view.interpolation),
        "do_center_crop": view.fit != "exact" or sides != size,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(shown.mean),
        "image_std": list(shown.std),
    }


class _CannotDo(Exception):
    """Something in a description that no view of ours does; ends "its file ..."."""


def _of_processor(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    for key in ("do_pad", "do_flip_channel_order", "rescale_offset"):
        if config.get(key):
            raise _CannotDo(f"says {key}={config[key]!r}")
    resample = config["resample"]
    if type(resample) is not int or resample not in range(len(INTERPOLATIONS)):
        raise _CannotDo(f"says resample={resample!r}")
    ratio, fit, output = _geometry(kind, config)
    view = EvalView(ratio, fit, INTERPOLATIONS[resample], "transformers")
    mean, std = _colour(config["image_mean"]), _deviation(config["image_std"])
    if not config.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if not mean or not std:
        raise _CannotDo(
            f"says image_mean={config['image_mean']!r} and image_std={config['image_std']!r}"
        )
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0
    if not _positive(factor):
        raise _CannotDo(f"says rescale_factor={factor!r}")
    if abs(255 * factor - 1) > 1e-6:
        # (levels x factor - mean) / std, of levels that are divided by 255 here.
        mean, std = (tuple(value / (255 * factor) for value in pair) for pair in (mean, std))
    return {"mean": mean, "std": std, "view": view, "output": output, "refused": ""}


def _geometry(kind: str, config: Mapping[str, Any]) -> tuple[Any, Any, Size | None]:
    """Return ratios kept, fit and the size that comes out."""
    crop = _size(config, "crop_size", True) if config.get("do_center_crop") else None
    if not config.get("do_resize", True):
        if not crop:
            raise _CannotDo("neither resizes nor crops images")
        return (1.0, 1.0), "none", crop
    resized = _size(config, "size", kind not in _SHORTEST)
    if kind == "ConvNext":
        if isinstance(resized, tuple):
            raise _CannotDo(f"says size={config['size']!r}")
        if resized >= 384:
            return (1.0, 1.0), "exact", (resized, resized)
        keep = config["crop_pct"]
        if not _positive(keep):
            raise _CannotDo(f"says crop_pct={keep!r}")
        return (float(keep), float(keep)), "cover", (resized, resized)
    if isinstance(resized, int):
        if not crop:
            raise _CannotDo("keeps the proportions of images and does not crop them")
        return (Fraction(crop[0], resized), Fraction(crop[1], resized)), "cover", crop
    crop = crop or resized
    return (Fraction(crop[0], resized[0]), Fraction(crop[1], resized[1])), "exact", crop


def _size(config: Mapping[str, Any], key: str, square: bool) -> Any:
    """Return (height, width) in pixels, or one number for the shorter side."""
    value = config.get(key)
    if isinstance(value, Mapping):
        value = {name: side for name, side in value.items() if side is not None}
        if set(value) == {"height", "width"}:
            value = [value["height"], value["width"]]
        elif set(value) == {"shortest_edge"} and key == "size":
            value, square = value["shortest_edge"], False
    if is_whole(value):
        return (value, value) if square else value
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_whole, value)):
        return value[0], value[1]
    raise _CannotDo(f"says {key}={config.get(key)!r}")


def _colour(value: Any) -> tuple[float, ...]:
    """Return three numbers, of a list of them or of one for all; () if it is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = [value] * 3
    if not isinstance(value, list | tuple) or len(value) != 3:
        return ()
    numbers = all(isinstance(item, int | float) for item in value)
    return tuple(map(float, value)) if numbers else ()


def _deviation(value: Any) -> tuple[float, ...]:
    """Return three numbers as `_colour` does; () if one of them cannot be divided by."""
    numbers = _colour(value)
    return numbers if all(number > 0 for number in numbers) else ()


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and value > 0


def is_whole(value: Any) -> bool:
    """Return whether it is a number of pixels."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
