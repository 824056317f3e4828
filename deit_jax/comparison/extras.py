"""Optional packages, and the sentence that says how to install them."""

import importlib
from types import ModuleType

INSTALL = "pip install 'deit_jax[compare]'"


def require(package: str) -> ModuleType:
    """Import a package of the extra `compare`.

    Raises:
        ModuleNotFoundError: it is not installed, or cannot be imported here; one sentence.
    """
    try:
        return importlib.import_module(package)
    except (ImportError, RuntimeError) as error:
        # RuntimeError: of torchvision, where it was built for another PyTorch than is installed.
        if getattr(error, "name", None) == package:
            message = f"Comparing needs {package}, which is not installed: {INSTALL}."
        else:
            top = package.partition(".")[0]
            message = f"{top} is installed but cannot be imported ({error}); install it anew."
        raise ModuleNotFoundError(message) from error
