"""The config files that come with the project: `configs/` of a checkout, or inside the package.

An installed package has them inside `deit_jax`, so that there is no top-level package of such a
common name. They import each other as `configs` everywhere.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

PACKAGE = "configs"


def directory() -> Path:
    """Return where the config files lie."""
    installed = Path(__file__).parents[1] / PACKAGE
    return installed if installed.is_dir() else installed.parents[1] / PACKAGE


def find_config_file(given: str) -> str:
    """Return `FILE.py:WHAT` with the path of the file that is meant.

    That is the file of this path, with ~ for the home directory. Where there is none,
    `configs/deit.py` and `deit.py` mean one that comes with the project. A file that is nowhere is
    returned as it was given.
    """
    given = os.path.expanduser(given)
    path, colon, what = given.partition(":")
    if not Path(path).is_file() and not os.path.isabs(path):
        ours = directory() / path.removeprefix(f"{PACKAGE}/")
        if path and ours.is_file():
            path = str(ours)
    _offer_package(Path(path))
    return f"{path}{colon}{what}"


def config_files() -> list[str]:
    """Return the names of all of them."""
    return sorted(file.name for file in directory().glob("[a-z]*.py"))


def no_config_file(path: str) -> str:
    """Return the sentence for a file that is neither there nor comes with the project."""
    names = ", ".join(config_files())
    return f"There is no config file {path}; there are {names}, or give one of your own."


def family(name: str) -> ModuleType | None:
    """Return the module of a config file of the project by its name; None where there is none."""
    _offer_package(directory() / f"{name}.py")
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError:
        return None


def _offer_package(config_file: Path) -> None:
    """Let `from configs import deit` find the files beside a config file, or else the project's.

    Whatever other package of that name is installed.
    """
    if PACKAGE in sys.modules:
        return
    beside = config_file.absolute().parent
    is_package = beside.name == PACKAGE and (beside / "__init__.py").is_file()
    folder = beside if is_package else directory()
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
