"""Names of the tensors of the convnets in other projects, and which convnet a file holds.

Of the tensors, kernels are HWIO here and OIHW there, linear kernels (in, out) and (out, in).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from deit_jax.models.architecture import ConvNetArchitecture
from deit_jax.models.convnet import ConvNet
from deit_jax.models.registry import list_models, model_spec
from deit_jax.models.spec import ModelSpec
from deit_jax.trees import Tree, TreePath, flatten
from deit_jax.weights.convnets.families import FAMILIES, MARKERS
from deit_jax.weights.convnets.layout import Rename, same

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
Shape = tuple[int, ...]
_Candidate = tuple[ModelSpec, type[ConvNet], ConvNetArchitecture]


def convnet_names(model_name: str, paths: Sequence[TreePath], layout: str) -> dict[TreePath, str]:
    """Return the foreign name of each leaf of a convnet's parameters and BatchNorm statistics.

    Args:
        model_name: a registered convnet.
        paths: of our leaves, such as `("s1", "b1", "conv1", "conv", "kernel")`.
        layout: "timm", "torchvision" or, of EfficientNet, "efficientnet_pytorch".

    Raises:
        ValueError: the model is no convnet, or the layout has no such model.
    """
    spec = model_spec(model_name)
    sizes = spec.convnet
    if not sizes:
        raise ValueError(f"{model_name} is no convnet, so it has no names of timm's convnets.")
    layouts = FAMILIES[spec.family]
    if layout not in layouts:
        raise ValueError(
            f"{model_name} has no layout {layout!r}; choose from {', '.join(layouts)}."
        )
    _require_equal_arithmetic(spec, sizes, layout)
    named = partial(layouts[layout].rename, depths=_depths(sizes))
    return {path: f"{named(path[:-1])}.{_LEAVES[path[-1]]}" for path in paths}


def convnet_layout(names: Mapping[str, Any] | Sequence[str]) -> str | None:
    """Return the layout that a convnet's tensor names have, or None if they are of no convnet.

    A ResNet's are "timm", which are torchvision's as well.
    """
    return next((layout for name, (_, layout) in MARKERS.items() if name in names), None)


def guess_convnet(shapes: Mapping[str, Shape]) -> str | None:
    """Return the registered name of the convnet that has tensors of these names and shapes.

    Of networks that have the same tensors, such as timm's `efficientnet` and `tf_efficientnet`, the
    first is returned whose arithmetic the layout can be of.

    Args:
        shapes: of a state dict's tensors, by foreign name.
    """
    found = next((where for name, where in MARKERS.items() if name in shapes), None)
    if not found:
        return None
    family, layout = found
    candidates = (
        (spec, module, sizes)
        for spec, module, sizes in _convnets()
        if spec.family == family and (sizes.same_padding or layout != "efficientnet_pytorch")
    )
    return _recognise(candidates, shapes, FAMILIES[family][layout].rename)


def name_own_convnet(params: Tree) -> str:
    """Return the registered name of a convnet's tree of ours; "" if there is none.

    Of networks that have the same tensors the first is named.
    """
    shapes = {
        ".".join((*path[:-1], "weight")): (array.shape[3], array.shape[2], *array.shape[:2])
        for path, array in flatten(params).items()
        if path[-1] == "kernel" and array.ndim == 4
    }
    return _recognise(_convnets(), shapes, same) or ""


def _convnets() -> Iterator[_Candidate]:
    for spec in map(model_spec, list_models()):
        if spec.convnet and issubclass(spec.module, ConvNet):
            yield spec, spec.module, spec.convnet


def _recognise(
    candidates: Iterable[_Candidate], shapes: Mapping[str, Shape], rename: Rename
) -> str | None:
    """Find the first convnet with these kernels larger than 1x1, of which every block has one."""
    spatial = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[-1] > 1}
    for spec, module, sizes in candidates:
        named = partial(rename, depths=_depths(sizes))
        kernels = module.spatial_kernels(sizes)
        gate = named((*module.block_path(0, 0), "se", "fc1"))
        if (
            spatial == {f"{named(path)}.weight": shape for path, shape in kernels.items()}
            and (f"{gate}.weight" in shapes) == sizes.squeeze_excite
        ):
            return spec.name
    return None


def _depths(sizes: ConvNetArchitecture) -> tuple[int, ...]:
    return tuple(stage.depth for stage in sizes.stages)


def _require_equal_arithmetic(spec: ModelSpec, sizes: ConvNetArchitecture, layout: str) -> None:
    """Refuse names under which another network would be read: same shapes, other results."""
    if layout == "torchvision" and not spec.in_torchvision:
        raise ValueError(
            f"torchvision has no {spec.name}: its EfficientNets pad symmetrically, and its B7 "
            "adds 1e-3 to the variance of BatchNorm; use timm's weights."
        )
    if layout == "efficientnet_pytorch" and not sizes.same_padding:
        raise ValueError(
            f"efficientnet_pytorch has no {spec.name}: its networks pad as TensorFlow; use timm's "
            "weights."
        )
