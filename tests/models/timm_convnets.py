"""timm's convnets with random weights that matter, and the same weights in our trees."""

import jax.numpy as jnp
import timm
import torch

from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.weights.convnet_names import convnet_names

# Axes of foreign kernels in our order: HWIO from OIHW, (in, out) from (out, in).
OUR_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def randomise(model, seed, margin=0.0, size=96, ceiling=0.0):
    """Give every parameter and statistic a value that matters, yet keep activations in proportion.

    Arbitrary statistics would amplify float32 rounding, in PyTorch as much as here, and so would
    those of random images: deep inside a random network they differ little from each other, and
    dividing by that little difference amplifies as well. So each statistic leaves half the mean in
    and divides by what is left then. With a `margin`, channels lie so many deviations above or
    below zero: of a million pre-activations some are always within rounding of ReLU's kink, and
    PyTorch's own gradients in float32 then differ from those in float64 by per cents. A `ceiling`
    is another kink, as ReLU6's, which channels are so far below.
    """
    torch.manual_seed(seed)
    norms = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}

    def calibrate(norm, inputs):
        mean = inputs[0].mean((0, 2, 3))
        norm.running_mean.copy_(0.5 * mean)
        spread = (inputs[0] - norm.running_mean[:, None, None]).square().mean((0, 2, 3))
        norm.running_var.copy_(spread * torch.empty_like(spread).uniform_(0.8, 1.25))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
        for name, norm in norms.items():
            norm.weight.uniform_(0.5, 1.5)
            if ceiling:
                norm.weight.mul_(ceiling / 2 / margin / 1.5)
            norm.bias.add_(margin * norm.weight * torch.randn_like(norm.bias).sign())
            if name.endswith(("bn3", "conv3.bn")):
                # A residual branch counts for less than its shortcut, as in trained networks.
                norm.weight.mul_(0.25)
                norm.bias.mul_(0.25)
        hooks = [norm.register_forward_pre_hook(calibrate) for norm in norms.values()]
        model.eval()(torch.randn(8, 3, size, size))
        for hook in hooks:
            hook.remove()
    return model


def reference(name, seed=0, margin=0.0, ceiling=0.0):
    """timm's model of that name, randomised and set to inference."""
    torch.manual_seed(seed)
    return randomise(timm.create_model(name), seed, margin, ceiling=ceiling).eval()


def ours(name, tensors, layout="timm", build=None):
    """Our function of that name, with parameters and statistics taken from named tensors.

    With `build`, of another depth or width than the model whose rules for names it has.
    """
    function, params, stats = abstract(build or model_builder(name))
    leaves = [dict(_leaves(tree)) for tree in (params, stats)]
    names = convnet_names(name, [path for tree in leaves for path in tree], layout)
    assert len(set(names.values())) == len(names)
    return function, *(_fill(tree, tensors, names) for tree in (params, stats))


def as_tree(name, tree, tensors):
    """Tensors by timm's names, in the shape of our tree."""
    return _fill(tree, tensors, convnet_names(name, list(dict(_leaves(tree))), "timm"))


def _leaves(tree, path=()):
    for name, child in tree.items():
        if isinstance(child, dict):
            yield from _leaves(child, (*path, name))
        else:
            yield (*path, name), child


def _fill(tree, tensors, names, path=()):
    filled = {}
    for key, child in tree.items():
        here = (*path, key)
        if isinstance(child, dict):
            filled[key] = _fill(child, tensors, names, here)
        else:
            tensor = tensors[names[here]].detach().float()
            filled[key] = jnp.asarray(tensor.permute(OUR_AXES[tensor.ndim]).numpy())
            assert filled[key].shape == child.shape, here
    return filled
