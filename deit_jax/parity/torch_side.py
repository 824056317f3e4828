"""The PyTorch half of a comparison, asked in our terms.

Intermediate results by our names, both heads' logits, gradients and parameters as trees like ours.
`parity.torch_models` builds it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from deit_jax.parity.our_model import Images
from deit_jax.trees import Tree, TreePath
from deit_jax.weights.transformer_layout import from_foreign

TorchHeadLogits = tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"] | None]


def _keep_output(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        # Attention of transformers also returns its weights.
        seen[name] = output[0] if isinstance(output, tuple) else output

    return keep


def _keep_input(seen: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[name] = inputs[0]

    return keep


@dataclass(frozen=True)
class TorchSide:
    """A PyTorch model in evaluation mode.

    Attributes:
        title: what it is, with versions.
        model: the model.
        module_name: from the name of an intermediate result to the module that returns it.
        layout: whose tensor names it has (`weights.transformer_layout`).
        convnet: registered name, if it is no transformer; then `paths` are its parameters.
        loaded_from: how the weights came into it.
    """

    title: str
    model: nn.Module
    module_name: Callable[[str], str]
    layout: str
    convnet: str
    paths: tuple[TreePath, ...]
    loaded_from: str

    def activations(self, images: Images, names: list[str]) -> dict[str, np.ndarray]:
        """Return the intermediate results of these names, and the model's answer as "logits"."""
        with torch.no_grad():
            seen, answer = self._run(images, names)
        seen["logits"] = answer
        # Feature maps have their channels last in ours.
        maps = {n: x.permute(0, 2, 3, 1) if x.ndim == 4 else x for n, x in seen.items()}
        return {name: value.detach().cpu().numpy() for name, value in maps.items()}

    def head_logits(self, images: Images) -> TorchHeadLogits:
        """Return both heads' logits, differentiable."""
        seen, answer = self._run(images, ["head", "head_dist"])
        return seen.get("head", answer), seen.get("head_dist")

    def gradients(self) -> Tree:
        """Return the gradients of all parameters as a tree of ours."""
        return self._tree({name: p.grad for name, p in self.model.named_parameters()})

    def parameters(self) -> Tree:
        """Return all parameters as a tree of ours."""
        return self._tree(dict(self.model.named_parameters()))

    def _run(self, images: Images, names: list[str]) -> tuple[dict[str, Tensor], Tensor]:
        modules = dict(self.model.named_modules())
        seen: dict[str, Tensor] = {}
        handles = []
        for name in names:
            module = modules.get(self.module_name(name))
            if module is None:
                continue
            if name == "tokens" and self.layout != "transformers":
                # No module of its own: what enters the first block.
                handles.append(module.register_forward_pre_hook(_keep_input(seen, name)))
            else:
                handles.append(module.register_forward_hook(_keep_output(seen, name)))
        try:
            # A copy: PyTorch warns of arrays that nobody may write into, as those of JAX are.
            answer = self.model(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))
        finally:
            for handle in handles:
                handle.remove()
        answer = getattr(answer, "logits", answer)
        if isinstance(answer, tuple):
            answer = answer[0] if answer[1] is None else (answer[0] + answer[1]) / 2
        return seen, answer

    def _tree(self, tensors: Mapping[str, Tensor | None]) -> Tree:
        # A copy: optimisers change parameters in place.
        arrays = {n: t.detach().cpu().numpy().copy() for n, t in tensors.items() if t is not None}
        return from_foreign(arrays, self.layout, self.convnet, self.paths)[0]
