"""Reading any file of weights: what it is, is decided by its content and not by its name."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deit_jax.files import read_json
from deit_jax.messages import quoted
from deit_jax.weights.formats.pth import is_tensor, read_pth
from deit_jax.weights.formats.safetensors import read_safetensors
from deit_jax.weights.formats.shards import find_weights, is_index, read_index
from deit_jax.weights.formats.torch_containers import is_pth
from deit_jax.weights.formats.wrappers import WHICH, network_prefix, state_dict, with_root
from deit_jax.weights.published import PublishedFile, identify

_LARGEST_CONFIG = 2**24
PREPROCESSOR = "preprocessor_config.json"
PREPROCESSORS = (PREPROCESSOR, "processor_config.json")
"""Where transformers keeps how images are prepared; the second has it as a part."""
SIDECAR_SHA256 = "deit_jax.sha256"


@dataclass(frozen=True)
class WeightFile:
    """The content of a file of weights.

    Attributes:
        path: of the file, or of the index of several, inside the directory if one was named.
        tensors: arrays by their foreign names; not to be written to, they may share memory.
        config: what a `config.json` beside the file holds, {} if there is none.
        preprocessor: what transformers' `preprocessor_config.json` beside it holds, likewise.
        sha256: of the file.
        published: which known file it is, if it is one.
        metadata: texts: what a safetensors header says, or what a training checkpoint says of its
            run (`epoch`, `arch`, `args.model` ...); and as `stripped_prefix` what the names began
            with and was cut off.
        beside: shapes of tensors that are not the network's, by name: without that prefix.
        arguments: what timm's training gave to the model beside its name, {} in other files.
    """

    path: Path
    tensors: dict[str, np.ndarray]
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    sha256: str
    published: PublishedFile | None
    metadata: dict[str, str]
    beside: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_file(path: str | Path, which: str = "model") -> WeightFile:
    """Read `.pth`, `.pt`, `.bin` or `.safetensors`, or a directory of a Hugging Face repository.

    Nothing from the file is executed. `.pth` files are checked against their checksums; a
    safetensors file has none, so altered values are found only where the SHA-256 of the file is
    known: if the authors of DeiT published it, or if it lies in the cache of Hugging Face.

    Args:
        path: of the file, of the index of several, or of a directory with either.
        which: of a training checkpoint, "model" or "ema" (the averaged weights).

    Raises:
        FileNotFoundError: there is no such file, or none in the directory.
        ValueError: the file is damaged, no file of weights, or does not hold what was asked for.
    """
    if which not in WHICH:
        raise ValueError(f"There are no {which!r} weights; choose from {', '.join(WHICH)}.")
    path = find_weights(Path(path))
    sha256 = sha256_of(path)
    published = identify(path, sha256)
    if is_index(path):
        content = _read_shards(path, which)
    else:
        _check_blob_name(path, sha256)
        content = _read_one(path, which, sha256)
    if not content.tensors:
        raise ValueError(f"{path} holds no tensors.")
    prefix = network_prefix(path, content.tensors)
    beside = {n: t.shape for n, t in content.tensors.items() if not n.startswith(prefix)}
    if prefix:
        content.metadata["stripped_prefix"] = prefix
    inside = (name for name in content.tensors if name not in beside)
    names = with_root(name.removeprefix(prefix) for name in inside)
    return WeightFile(
        path,
        {name: content.tensors[prefix + old] for name, old in names.items()},
        _read_config(path.with_name("config.json")),
        _read_preprocessor(path.parent),
        sha256,
        published,
        content.metadata,
        beside,
        content.arguments,
    )


class _Content(NamedTuple):
    """What one file holds, before prefixes are cut off."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    arguments: dict[str, Any]


def _read_one(path: Path, which: str, sha256: str) -> _Content:
    arguments: dict[str, Any] = {}
    if _format_of(path) == "pth":
        metadata: dict[str, str] = {}

        def select(content: Any) -> Any:
            metadata.update(_notes(content))
            arguments.update(_model_arguments(content))
            return state_dict(path, content, which, is_tensor)

        tensors = read_pth(path, select)
        return _Content(tensors, metadata | _read_sidecar(path, sha256), arguments)
    if which == "ema":
        raise ValueError(f"{path} is a safetensors file, which holds one set of weights only.")
    return _Content(*read_safetensors(path), arguments)


def _read_shards(index: Path, which: str) -> _Content:
    """Read all files that an index names; each must hold what the index says, and no more."""
    tensors: dict[str, np.ndarray] = {}
    for name, wanted in read_index(index).items():
        shard = index.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(
                f"There is no {name} beside {index}, which names it; copy all of its files."
            )
        digest = sha256_of(shard)
        _check_blob_name(shard, digest)
        content = _read_one(shard, which, digest)
        if odd := sorted(wanted ^ content.tensors.keys()):
            raise ValueError(f"{index} does not fit to {name}: {quoted(odd[0])} is in one alone.")
        tensors |= content.tensors
    return _Content(tensors, {}, {})


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


def _model_arguments(content: Any) -> dict[str, Any]:
    """Return the arguments that timm's training gave to the model, beside its name."""
    found = content.get("args") if isinstance(content, dict) else None
    if not isinstance(found, Mapping):
        return {}
    options = found.get("model_kwargs")
    pool = found.get("gp")
    own = dict(options) if isinstance(options, Mapping) else {}
    return own | ({"global_pool": pool} if isinstance(pool, str) else {})


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    config = read_json(path, _LARGEST_CONFIG)
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
