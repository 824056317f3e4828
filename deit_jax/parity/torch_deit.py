"""DeiT in plain PyTorch, written from the paper alone: the side that shares no code with timm.

Parameter names are those of the published weights, so their files load strictly. Source: arXiv
2012.12877, section 4, and arXiv 2010.11929, section 3.1; layer normalisation epsilon 1e-6 and
exact GELU as in the reference implementation. DeiT III: arXiv 2204.07118, section 3.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class TorchPatchEmbed(nn.Module):
    """Cuts the image into squares and projects each, row by row."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, stride=patch_size)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch patches features"]:
        """Return one row for each patch."""
        projected = self.proj(images)
        return projected.reshape(*projected.shape[:2], -1).transpose(1, 2)


class TorchAttention(nn.Module):
    """Softmax attention, one head after the other (readable rather than fast)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.num_heads = num_heads

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Let every token attend to all."""
        mixed = []
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        heads = (part.chunk(self.num_heads, dim=-1) for part in (query, key, value))
        for q, k, v in zip(*heads, strict=True):
            scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
            mixed.append(torch.softmax(scores, dim=-1) @ v)
        return self.proj(torch.cat(mixed, dim=-1))


class TorchMlp(nn.Module):
    """Two dense layers, four times wider between, with an exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU(approximate="none")
        self.fc2 = nn.Linear(4 * width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Map each token on its own."""
        return self.fc2(self.act(self.fc1(x)))


class TorchBlock(nn.Module):
    """Attention and MLP, each normalised before and added to its input, in DeiT III scaled."""

    def __init__(self, width: int, num_heads: int, deit3: bool, epsilon: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = TorchAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = TorchMlp(width)
        self.gamma_1 = nn.Parameter(torch.ones(width)) if deit3 else 1.0
        self.gamma_2 = nn.Parameter(torch.ones(width)) if deit3 else 1.0

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Run the block."""
        x = x + self.gamma_1 * self.attn(self.norm1(x))
        return x + self.gamma_2 * self.mlp(self.norm2(x))


class TorchDeit(nn.Module):
    """The classifier; `forward` returns the logits of the class head and the distillation head.

    Args:
        num_classes: classes of each head.
        image_size: (height, width) in pixels.
        patch_size: side of a patch in pixels.
        width: embedding dimension.
        depth: number of blocks.
        num_heads: attention heads.
        distilled: with distillation token and its head; without, the second logits are None.
        deit3: with LayerScale, and position embeddings for the patches only.
        epsilon: of the layer normalisation.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: tuple[int, int],
        *,
        patch_size: int,
        width: int,
        depth: int,
        num_heads: int,
        distilled: bool,
        deit3: bool = False,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__()
        patches = (image_size[0] // patch_size) * (image_size[1] // patch_size)
        # Rows of position embeddings that do not belong to a patch.
        self.extra = 0 if deit3 else 1 + distilled
        self.patch_embed = TorchPatchEmbed(patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if distilled else None
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + self.extra, width))
        blocks = (TorchBlock(width, num_heads, deit3, epsilon) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.head = nn.Linear(width, num_classes)
        self.head_dist = nn.Linear(width, num_classes) if distilled else None

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"] | None]:
        """Return both heads' logits."""
        patches = self.patch_embed(images)
        learnt = [token for token in (self.cls_token, self.dist_token) if token is not None]
        prefix = torch.cat([token.expand(len(images), -1, -1) for token in learnt], dim=1)
        if self.extra:
            prefix = prefix + self.pos_embed[:, : self.extra]
        patches = patches + self.pos_embed[:, self.extra :]
        x = self.norm(self.blocks(torch.cat([prefix, patches], dim=1)))
        return self.head(x[:, 0]), None if self.head_dist is None else self.head_dist(x[:, 1])
