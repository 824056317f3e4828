"""Data-efficient image transformers (DeiT) in JAX; importing this package starts nothing."""

from typing import TYPE_CHECKING, Any

from deit_jax.version import __version__

if TYPE_CHECKING:
    from deit_jax.api import (
        LoadedModel,
        create_model,
        list_models,
        load_model,
        load_weights,
        save_weights,
    )

__all__ = [
    "LoadedModel",
    "__version__",
    "create_model",
    "list_models",
    "load_model",
    "load_weights",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    """Import the public functions when one is first asked for.

    Reader processes import this package too, and must not start JAX.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deit_jax import api

    globals()[name] = getattr(api, name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
