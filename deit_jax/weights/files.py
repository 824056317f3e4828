"""Reading any file of weights: what it is, is decided by its content and not by its name."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deit_jax.weights.messages import in_short, quoted
from deit_jax.weights.pth import is_tensor, read_pth
from deit_jax.weights.published import PublishedFile, identify
from deit_jax.weights.safetensors_reader import read_safetensors
from deit_jax.weights.torch_containers import is_pth

# What a directory of a Hugging Face repository may hold, the best first.
WEIGHT_NAMES = ("model.safetensors", "pytorch_model.bin")
# In checkpoints of the reference and of timm.
_WRAPPERS = {"model": ("model", "state_dict"), "ema": ("model_ema", "state_dict_ema")}
# Left by DistributedDataParallel and by torch.compile.
_PREFIXES = ("module.", "_orig_mod.")
_LARGEST_CONFIG = 2**24
PREPROCESSOR = "preprocessor_config.json"
PREPROCESSORS = (PREPROCESSOR, "processor_config.json")
"""Where transformers keeps how images are prepared; the second has it as a part."""
SIDECAR_SHA256 = "deit_jax.sha256"


@dataclass(frozen=True)
class WeightFile:
    """The content of a file of weights.

    Attributes:
        path: of the file, inside the directory if one was named.
        format: "pth" or "safetensors".
        tensors: arrays by their foreign names; not to be written to, they may share memory.
        config: what a `config.json` beside the file holds, {} if there is none.
        preprocessor: what transformers' `preprocessor_config.json` beside it holds, likewise.
        sha256: of the file.
        published: which file of the authors of DeiT it is, if it is one.
        metadata: texts: what a safetensors header says, or what a training checkpoint says of its
            run (`epoch`, `arch`, `args.model` ...); and as `stripped_prefix` what all names began
            with and was cut off.
    """

    path: Path
    format: str
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    sha256: str
    published: PublishedFile | None
    metadata: dict[str, str]


def read_file(path: str | Path, which: str = "model") -> WeightFile:
    """Read `.pth`, `.pt`, `.bin` or `.safetensors`, or a directory of a Hugging Face repository.

    Nothing from the file is executed. `.pth` files are checked against their checksums; a
    safetensors file has none, so altered values are found only where the SHA-256 of the file is
    known: if the authors of DeiT published it, or if it lies in the cache of Hugging Face.

    Args:
        path: of the file or directory.
        which: of a training checkpoint, "model" or "ema" (the averaged weights).

    Raises:
        FileNotFoundError: there is no such file, or none in the directory.
        ValueError: the file is damaged, no file of weights, or does not hold what was asked for.
    """
    if which not in _WRAPPERS:
        raise ValueError(f"There are no {which!r} weights; choose from {', '.join(_WRAPPERS)}.")
    path = _find(Path(path))
    kind = _format_of(path)
    sha256 = sha256_of(path)
    published = identify(path, sha256)
    _check_blob_name(path, sha256)
    if kind == "pth":
        metadata: dict[str, str] = {}

        def select(content: Any) -> Any:
            metadata.update(_notes(content))
            return _state_dict(path, content, which)

        tensors = read_pth(path, select)
        metadata |= _read_sidecar(path, sha256)
    else:
        if which == "ema":
            raise ValueError(f"{path} is a safetensors file, which holds one set of weights only.")
        tensors, metadata = read_safetensors(path)
    if not tensors:
        raise ValueError(f"{path} holds no tensors.")
    tensors, prefix = _strip_prefix(tensors)
    if prefix:
        metadata["stripped_prefix"] = prefix
    config = _read_config(path.with_name("config.json"))
    preprocessor = _read_preprocessor(path.parent)
    return WeightFile(path, kind, tensors, config, preprocessor, sha256, published, metadata)


def _find(path: Path) -> Path:
    if path.is_dir():
        for name in WEIGHT_NAMES:
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(
            f"There is no {' or '.join(WEIGHT_NAMES)} in {path}; name the file of weights itself."
        )
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a directory.")
    return path


def _format_of(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(512)
    if is_pth(head):
        return "pth"
    if head[8:9] == b"{":
        return "safetensors"
    if not head:
        reason = "is empty"
    elif head.startswith(b"version https://git-lfs"):
        reason = "is the pointer of Git LFS to a file that was not fetched; run `git lfs pull`"
    elif head.lstrip()[:1] == b"<":
        reason = "is a web page, so its download went wrong"
    else:
        reason = "is no file of weights: neither PyTorch's nor safetensors, or damaged"
    raise ValueError(f"{path} {reason}.")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_blob_name(path: Path, sha256: str) -> None:
    """In the cache of Hugging Face a large file is a link to one that is named by its SHA-256."""
    blob = path.resolve()
    named_by_hash = len(blob.name) == 64 and not blob.name.strip("0123456789abcdef")
    if blob.parent.name == "blobs" and named_by_hash and blob.name != sha256:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is not the one that it was downloaded with; delete "
            f"{blob} and download it again."
        )


def _state_dict(path: Path, content: Any, which: str) -> dict[str, Any]:
    """Find the tensors by name in what a `.pth` file holds."""
    if not isinstance(content, dict):
        kind = "tensor" if is_tensor(content) else type(content).__name__
        raise ValueError(f"{path} holds one object, a {kind}, instead of named tensors.")
    bare = bool(content) and all(is_tensor(value) for value in content.values())
    found = next((content[key] for key in _WRAPPERS[which] if key in content), None)
    if bare and which == "model":
        found = content
    if not isinstance(found, dict):
        there = "only tensors" if bare else ", ".join(map(quoted, list(content)[:12])) or "nothing"
        raise ValueError(
            f"{path} has no {' or '.join(map(repr, _WRAPPERS[which]))} to take the {which} weights "
            f"from; it holds {there}."
        )
    for name, value in found.items():
        if not (isinstance(name, str) and is_tensor(value)):
            raise ValueError(f"{path} holds weights of which {quoted(name)} is no named tensor.")
    return found


def _notes(content: Any) -> dict[str, str]:
    """Collect the numbers and words that a training checkpoint says of its run."""
    if not isinstance(content, dict):
        return {}
    notes = dict(content)
    if isinstance(arguments := content.get("args"), Mapping):
        notes |= {f"args.{name}": value for name, value in arguments.items()}
    return {
        name: str(value)
        for name, value in notes.items()
        if isinstance(name, str) and isinstance(value, str | int | float | bool)
    }


def _strip_prefix(tensors: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) and name != prefix for name in tensors):
            return {name.removeprefix(prefix): array for name, array in tensors.items()}, prefix
    return tensors, ""


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ValueError(f"{path} is far too large to describe a model.")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged or no JSON: {in_short(error)}.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not describe a model: it is no JSON object.")
    return config


def _read_preprocessor(directory: Path) -> dict[str, Any]:
    """Read how transformers prepares images, from either of the files that it keeps it in."""
    nested = _read_config(directory / PREPROCESSORS[1]).get("image_processor")
    return nested if isinstance(nested, dict) else _read_config(directory / PREPROCESSOR)


def sidecar(path: Path) -> Path:
    """Return the file of texts that we write beside a `.pth` file of bare tensors."""
    return path.with_name(f"{path.name}.json")


def _read_sidecar(path: Path, sha256: str) -> dict[str, str]:
    """Read those texts, unless they are of another file that had this name."""
    texts = _read_config(sidecar(path))
    if texts.pop(SIDECAR_SHA256, None) != sha256:
        return {}
    return {key: text for key, text in texts.items() if isinstance(text, str)}
