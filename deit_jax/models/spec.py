"""What is known of a model before it is built, said once: nobody else guesses it from its name."""

from dataclasses import dataclass, replace
from typing import Any

from flax import nnx

from deit_jax.models.architecture import ConvNetArchitecture, VitArchitecture
from deit_jax.models.convnet import ConvNet
from deit_jax.models.vit import VisionTransformer
from deit_jax.trees import TreePath


@dataclass(frozen=True)
class ModelSpec:
    """One registered architecture.

    Attributes:
        name: as in the reference repository and timm.
        module: class of the model; says the name of its family and where in the parameters its
            first convolution and its heads lie.
        architecture: its sizes.
        image_size: default (height, width) in pixels.
        parameters: exact count at the default image size and `num_classes`.
        num_classes: default class count.
        top1: published ImageNet accuracy in percent, 0.0 where none was published.
        in_timm: whether timm builds it by this name.
        in_torchvision: of a convnet, whether torchvision's names of tensors can be of this network.
        elsewhere: other names that timm and torchvision have given it.
        same_tensors: other networks, here or in timm 1.0.31, that compute something else from
            tensors of the same names and shapes.
    """

    name: str
    module: type[VisionTransformer] | type[ConvNet]
    architecture: VitArchitecture | ConvNetArchitecture
    image_size: tuple[int, int]
    parameters: int
    num_classes: int = 1000
    top1: float = 0.0
    in_timm: bool = True
    in_torchvision: bool = True
    elsewhere: tuple[str, ...] = ()
    same_tensors: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """Whose table of names it has: "vit", "regnet", "resnet" or "efficientnet"."""
        return self.module.FAMILY

    @property
    def transformer(self) -> VitArchitecture | None:
        """The sizes of a vision transformer; None of a convnet."""
        return self.architecture if isinstance(self.architecture, VitArchitecture) else None

    @property
    def convnet(self) -> ConvNetArchitecture | None:
        """The sizes of a convnet; None of a vision transformer."""
        return self.architecture if isinstance(self.architecture, ConvNetArchitecture) else None

    @property
    def batch_norm(self) -> bool:
        """Whether it normalises by statistics of the batch, as all convnets here."""
        return self.convnet is not None

    @property
    def patch_size(self) -> int:
        """What both sides of an image must be multiples of, in pixels."""
        return self.transformer.patch_size if self.transformer else 1

    @property
    def num_heads(self) -> int:
        """Heads of the attention; 0 without."""
        return self.transformer.num_heads if self.transformer else 0

    @property
    def distilled(self) -> bool:
        """Whether it has a distillation token, with a head of its own."""
        return self.transformer is not None and self.transformer.distilled

    @property
    def heads(self) -> tuple[TreePath, ...]:
        """Where its linear heads lie in the parameters, that of the class first."""
        return self.module.HEADS if self.distilled else self.module.HEADS[:1]

    def resized(self, **sizes: Any) -> "ModelSpec":
        """Return the model with other sizes, as `depth=2`."""
        return replace(self, architecture=replace(self.architecture, **sizes))

    def build(self, *, rngs: nnx.Rngs, **options: Any) -> Any:
        """Construct the model; options as of its class."""
        module: Any = self.module
        return module(self.architecture, rngs=rngs, **options)
