"""Optional packages, and the sentence that says how to install them."""

import functools
import importlib
import importlib.machinery
from pathlib import Path
from types import ModuleType
from typing import Any


def require(package: str, extra: str = "compare", what: str = "Comparing") -> ModuleType:
    """Import a package of an extra.

    Args:
        package: to import.
        extra: that installs it.
        what: needs it, to begin a sentence.

    Raises:
        ModuleNotFoundError: it is not installed, or cannot be imported here; one sentence.
    """
    top = package.partition(".")[0]
    try:
        if extra == "compare":
            declare_torchvision_operators()
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:
        missing = getattr(error, "name", None)
        if missing in (top, "torch"):
            install = f"pip install 'deit_jax[{extra}]'"
            message = f"{what} needs {missing}, which is not installed: {install}."
        else:
            message = f"{top} is installed but cannot be imported ({error}); install it anew."
        raise ModuleNotFoundError(message) from error


@functools.cache
def declare_torchvision_operators() -> Any:
    """Make torchvision importable where it was built for another PyTorch than is installed.

    The wheel from the package index does not load beside a CPU build of PyTorch, and timm and
    transformers import it. It looks up two operators of its library on import, which no
    classifier calls: declaring them is enough. Does nothing where the library loads.

    Returns:
        What has to be kept for the declaration to last; the cache does.
    """
    # Looked for on the path alone: other finders may call this function when they are asked.
    found = importlib.machinery.PathFinder.find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    torch: Any = importlib.import_module("torch")
    try:
        torch.ops.load_library(str(Path(found.origin).with_name("_C.so")))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None
