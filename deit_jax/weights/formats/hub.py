"""Weights by the name of a Hugging Face repository: from the local cache, else downloaded if asked.

The cache is read as `huggingface_hub` lays it out, without that package:
`models--OWNER--NAME/refs/main` holds a commit, `snapshots/COMMIT/` the files of it, mostly as links
into `blobs/`. Only downloading needs the package.
"""

import importlib
import os
import re
from pathlib import Path
from typing import Any

from deit_jax.messages import in_short
from deit_jax.weights.formats.any import PREPROCESSOR
from deit_jax.weights.formats.shards import INDEX_NAMES, WEIGHT_NAMES, files_of, is_complete

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_DESCRIPTIONS = ("config.json", PREPROCESSOR)


def cache_directory() -> Path:
    """Return where `huggingface_hub` keeps what it downloads, by its environment variables."""
    home = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    default = os.path.join(os.environ.get("HF_HOME", home), "hub")
    # The second is the older name of the first.
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", default)
    chosen = os.environ.get("HF_HUB_CACHE", older)
    return Path(os.path.expandvars(os.path.expanduser(chosen)))


def find_in_cache(repo_id: str) -> Path | None:
    """Return the directory of the main branch of a repository in the cache, if it has weights.

    Args:
        repo_id: as "facebook/deit-tiny-patch16-224".
    """
    if not _REPO_ID.fullmatch(repo_id):
        return None
    repository = cache_directory() / f"models--{repo_id.replace('/', '--')}"
    try:
        commit = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not _COMMIT.fullmatch(commit):
        return None
    snapshot = repository / "snapshots" / commit
    # A link whose blob is gone, or a snapshot without weights, is as good as none.
    return snapshot if is_complete(snapshot) else None


def locate_weights(name_or_path: str | Path, download: bool = False) -> Path:
    """Find weights: a path if there is one, else a Hugging Face repository.

    Args:
        name_or_path: a file, a directory, or an id such as "facebook/deit-tiny-patch16-224".
        download: whether to fetch a repository that is not in the cache.

    Returns:
        The path given, or the directory of the repository's files.

    Raises:
        FileNotFoundError: there is no such path, nor such a repository in the cache.
        ModuleNotFoundError: `huggingface_hub` is needed and not installed.
        OSError: the download failed.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    name = str(name_or_path)
    if not _REPO_ID.fullmatch(name):
        raise FileNotFoundError(f"There is no file {name}.")
    if (found := find_in_cache(name)) is not None:
        return found
    if download:
        return _download(name)
    raise FileNotFoundError(
        f"There is no file {name}, and no weights of a Hugging Face repository {name} are in "
        f"{cache_directory()}; correct the name, or fetch it first: python -m deit_jax convert "
        f"{name} {name.partition('/')[2]}.safetensors --download."
    )


def _download(repo_id: str) -> Path:
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Downloading {repo_id} needs huggingface_hub: install it with "
            "`pip install 'deit_jax[hub]'`, or download the file yourself and give its path."
        ) from error
    cache = cache_directory()
    errors: Any = importlib.import_module("huggingface_hub.errors")

    def fetch(name: str) -> Path | None:
        try:
            return Path(hub.hf_hub_download(repo_id, name, cache_dir=cache))
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
