"""Weights by the name of a Hugging Face repository: from the local cache, else downloaded if asked.

`huggingface_hub` does both; it is only needed where such a name is used (`deit_jax[hub]`).
"""

import importlib
import re
from pathlib import Path
from typing import Any

from deit_jax.messages import in_short
from deit_jax.weights.formats.any import PREPROCESSORS
from deit_jax.weights.formats.shards import (
    INDEX_NAMES,
    WEIGHT_NAMES,
    WEIGHT_SUFFIXES,
    files_of,
    is_complete,
)
from deit_jax.weights.pretrained import packaged_weights
from deit_jax.weights.published import published_at

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_DESCRIPTIONS = ("config.json", *PREPROCESSORS)
_INSTALL = "needs huggingface_hub: install it with `pip install 'deit_jax[hub]'`"


def find_in_cache(repo_id: str) -> Path | None:
    """Return the directory of the main branch of a repository in the cache, if it has weights.

    Args:
        repo_id: as "facebook/deit-tiny-patch16-224".
    """
    if not _REPO_ID.fullmatch(repo_id) or (hub := _library()) is None:
        return None
    for name in (*WEIGHT_NAMES, *INDEX_NAMES):
        try:
            found = hub.try_to_load_from_cache(repo_id, name)
        except (OSError, ValueError):
            return None
        # It may also be a mark that the repository has no such file. Some shards may be missing.
        if isinstance(found, str) and is_complete(Path(found).parent):
            return Path(found).parent
    return None


def locate_weights(name_or_path: str | Path, download: bool = False) -> Path:
    """Find weights: a path if there is one, else in a package, else a Hugging Face repository.

    Args:
        name_or_path: a file, a directory, a short name such as "lite0", or an id such as
            "facebook/deit-tiny-patch16-224".
        download: whether to fetch a repository that is not in the cache.

    Returns:
        The path given, the package's file, or the directory of the repository's files.

    Raises:
        FileNotFoundError: there is no such path, nor such a repository in the cache, or the package
            is not installed.
        ModuleNotFoundError: `huggingface_hub` is needed and not installed.
        OSError: the download failed.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    name = str(name_or_path)
    if packaged := packaged_weights(name):
        return packaged
    if address := published_at(name):
        raise FileNotFoundError(f"There is no file {name}; it is published at {address}.")
    if not _REPO_ID.fullmatch(name):
        raise FileNotFoundError(f"There is no file {name}.")
    if (found := find_in_cache(name)) is not None:
        return found
    if download:
        return _download(name)
    if path.suffix in WEIGHT_SUFFIXES or path.parent.is_dir():
        # What is mistyped is a path, not a repository's name.
        raise FileNotFoundError(f"There is no file {name}.")
    if _library() is None:
        raise FileNotFoundError(
            f"There is no file {name}; a Hugging Face repository of that name {_INSTALL}."
        )
    cache = _library("huggingface_hub.constants").HF_HUB_CACHE
    raise FileNotFoundError(
        f"There is no file {name}, and no weights of a Hugging Face repository {name} are in "
        f"{cache}; correct the name, or fetch it first: python -m deit_jax convert {name} "
        f"{name.partition('/')[2]}.safetensors --download."
    )


def _library(module: str = "huggingface_hub") -> Any:
    """Return a module of the library, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None


def _download(repo_id: str) -> Path:
    hub, errors = _library(), _library("huggingface_hub.errors")
    if hub is None:
        raise ModuleNotFoundError(
            f"Downloading {repo_id} {_INSTALL}, or download the file yourself and give its path."
        )

    def fetch(name: str) -> Path | None:
        try:
            return Path(hub.hf_hub_download(repo_id, name))
        except errors.LocalEntryNotFoundError:
            # A kind of the next, but of a server that did not answer.
            raise
        except errors.EntryNotFoundError:
            return None

    try:
        weights = next(filter(None, map(fetch, (*WEIGHT_NAMES, *INDEX_NAMES))), None)
        if weights is not None:
            for name in sorted({*files_of(weights), *_DESCRIPTIONS} - {weights.name}):
                fetch(name)
    except (OSError, ValueError) as error:
        raise OSError(f"{repo_id} could not be downloaded: {in_short(error)}.") from error
    if weights is None:
        raise FileNotFoundError(
            f"The Hugging Face repository {repo_id} has no {' or '.join(WEIGHT_NAMES)}."
        )
    return weights.parent
