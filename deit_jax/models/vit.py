"""The vision transformer of DeiT, with or without distillation token (arXiv 2012.12877, section 4).

DeiT III (arXiv 2204.07118, section 3) is the same with three changes; see `VisionTransformer`.

Activations are two-dimensional, [batch*tokens, width]: every layer but attention acts on each token
alone. Token order: class token, distillation token if there is one, patches row by row.
"""

from dataclasses import astuple
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.attention import AttentionForm
from deit_jax.models.block import Block
from deit_jax.models.functional import HeadLogits
from deit_jax.models.fusion import fuse
from deit_jax.models.layer_norm import LAYER_NORM_EPSILON, LayerNorm
from deit_jax.models.layers import (
    INIT_STD,
    Linear,
    PatchEmbed,
    check_images,
    dropout,
    fold_keys,
)
from deit_jax.models.rematerialise import rematerialised
from deit_jax.sharding import whole
from deit_jax.trees import TreePath


class VisionTransformer(nnx.Module):
    """DeiT classifier.

    Args:
        architecture: its sizes.
        num_classes: classes of each head.
        image_size: (height, width) in pixels, multiples of `patch_size`.
        drop_rate: dropout after position embedding, attention projection and both MLP layers.
        drop_path_rate: stochastic depth probability of the last block; rises linearly from 0 at
            the first. Of DeiT III, the probability of every block.
        dtype: type of the operands of matrix products. All else is float32, but for
        residual_dtype: type of the stream from block to block, and of what branches add to it.
        rngs: for the initialisation.
        attention: how attention is computed.
        epsilon: of the layer normalisation, added to the variance.
        remat: whether blocks are computed again in the backward pass, which saves memory.
        fused_kernels: kernels of our own that are used where the device has any: "none", "norm" or
            "all", see `models.fused.encoder`.

    Raises:
        ValueError: the image cannot be cut into patches, the width not into heads, a probability
            is not in [0, 1), or options exclude each other.
    """

    FAMILY: ClassVar[str] = "vit"
    STEM: ClassVar[TreePath] = ("patch_embed", "proj")
    """Of the first convolution."""
    HEADS: ClassVar[tuple[TreePath, ...]] = (("head",), ("head_dist",))

    def __init__(
        self,
        architecture: VitArchitecture,
        *,
        num_classes: int,
        image_size: tuple[int, int],
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
        attention: AttentionForm = "auto",
        epsilon: float = LAYER_NORM_EPSILON,
        residual_dtype: Any = jnp.float32,
        remat: bool = False,
        fused_kernels: str = "none",
    ) -> None:
        patch_size, width, depth, num_heads, distilled, deit3 = astuple(architecture)
        _check_image_size(image_size, patch_size)
        _check_heads(num_heads, width)
        _check_rates(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        if fused_kernels != "none" and (remat or drop_rate):
            raise ValueError("fused_kernels are for models without remat and without dropout.")
        self.architecture = architecture
        self.num_classes = num_classes
        self.image_size = image_size
        self.has_distillation_head = distilled
        self.num_prefix_tokens = architecture.prefix_tokens
        self.drop_rate = drop_rate
        self.deit3 = deit3
        self.num_heads = num_heads
        self.epsilon = epsilon
        self.residual_dtype = jnp.dtype(residual_dtype)
        self.remat = remat
        self.fused_kernels = fused_kernels
        patches = (image_size[0] // patch_size) * (image_size[1] // patch_size)
        self.num_tokens = self.num_prefix_tokens + patches
        self.depth = depth

        def embedding(tokens: int) -> nnx.Param:
            draw = jax.random.normal(rngs.params(), (1, tokens, width), jnp.float32)
            return nnx.Param(INIT_STD * draw)

        self.patch_embed = PatchEmbed(patch_size, width, dtype=dtype, rngs=rngs)
        self.cls_token = embedding(1)
        if distilled:
            self.dist_token = embedding(1)
        self.pos_embed = embedding(patches if deit3 else self.num_tokens)
        rising = [i / max(depth - 1, 1) for i in range(depth)]
        rates = [drop_path_rate * (1.0 if deit3 else share) for share in rising]
        block = partial(
            Block,
            width,
            num_heads,
            drop_rate=drop_rate,
            dtype=dtype,
            rngs=rngs,
            layer_scale=deit3,
            attention=attention,
            epsilon=epsilon,
            residual_dtype=residual_dtype,
        )
        self.blocks = nnx.Dict({str(i): block(drop_path_rate=x) for i, x in enumerate(rates)})
        self.norm = LayerNorm(width, epsilon)
        self.head = Linear(width, num_classes, dtype=dtype, rngs=rngs)
        if distilled:
            self.head_dist = Linear(width, num_classes, dtype=dtype, rngs=rngs)

    def __call__(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch classes"]:
        """Return inference logits; of a distilled model, the mean of both heads' logits."""
        return fuse(*self.head_logits(images))

    def head_logits(
        self,
        images: Float[Array, "batch height width 3"],
        *,
        keys: Key[Array, " batch"] | None = None,
        train: bool = False,
    ) -> HeadLogits:
        """Return the class head's logits, and the distillation head's or None.

        Args:
            images: normalised pixels.
            keys: one PRNG key per image for dropout and stochastic depth; None for neither.
            train: without effect: the transformer has no batch statistics.
        """
        # The heads read the prefix tokens alone, so the last block computes no others.
        x = self._encode(images, self.num_prefix_tokens, keys)
        prefix = x.reshape(images.shape[0], self.num_prefix_tokens, -1)
        distill_logits = self.head_dist(prefix[:, 1]) if self.has_distillation_head else None
        return self.head(prefix[:, 0]), distill_logits

    def features(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch tokens features"]:
        """Return all tokens after the final normalisation."""
        return self._encode(images, self.num_tokens).reshape(images.shape[0], self.num_tokens, -1)

    def attention_maps(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "depth batch heads tokens tokens"]:
        """Return each block's attention weights: query tokens along the fourth axis."""
        x = self._embed(images)
        maps = []
        for block in self._blocks_in_order():
            maps.append(block.attn.maps(block.norm1(x), self.num_tokens))
            x = block(x, self.num_tokens, self.num_tokens)
        return jnp.stack(maps)

    def activations(
        self, images: Float[Array, "batch height width 3"]
    ) -> dict[str, Float[Array, "batch ..."]]:
        """Return every intermediate result of inference, in the order of computation.

        Names are those of the layers in published weights: `patch_embed` (patches), `tokens` (with
        position embeddings), for every block `blocks.0.norm1`, `.attn`, `.norm2`, `.mlp` and its
        result `blocks.0` (each branch before it is scaled and added), `norm`, `head`, and
        `head_dist` of a distilled model. All are [batch, tokens, features] but for the heads'
        [batch, classes].
        """
        seen: dict[str, Array] = {}
        seen["norm"] = self._encode(images, self.num_tokens, seen=seen)
        shape = (images.shape[0], -1, seen["norm"].shape[-1])
        seen = {name: x.reshape(shape) for name, x in seen.items()}
        seen["head"] = self.head(seen["norm"][:, 0])
        if self.has_distillation_head:
            seen["head_dist"] = self.head_dist(seen["norm"][:, 1])
        return seen

    def _encode(
        self,
        images: Float[Array, "batch height width 3"],
        queries: int,
        keys: Key[Array, " batch"] | None = None,
        seen: dict[str, Array] | None = None,
    ) -> Float[Array, "batch*{queries} features"]:
        """Embed, run all blocks and the final normalisation; return each image's first tokens.

        Where `seen` is given, it receives the intermediate results (see `activations`).
        """
        x = self._embed(images, seen)
        if self.fused_kernels != "none" and seen is None:
            # Pallas takes a while to import.
            from deit_jax.models.fused.encoder import encode

            blocks, kernels = self._blocks_in_order(), self.fused_kernels
            return encode(blocks, self.norm, x, self.num_tokens, queries, keys, kernels)
        x = dropout(x, self.drop_rate, fold_keys(keys, self.depth))
        for i, block in enumerate(self._blocks_in_order()):
            parts: dict[str, Array] | None = None if seen is None else {}
            count = queries if i == self.depth - 1 else self.num_tokens
            if self.remat and seen is None:
                x = rematerialised(block)(x, self.num_tokens, count, keys=fold_keys(keys, i))
            else:
                x = block(x, self.num_tokens, count, keys=fold_keys(keys, i), seen=parts)
            if seen is not None and parts is not None:
                seen |= {f"blocks.{i}.{name}": part for name, part in parts.items()}
                seen[f"blocks.{i}"] = x
        return self.norm(x)

    def _blocks_in_order(self) -> list[Block]:
        """Blocks by number: a merged dict comes back sorted as strings, with "10" before "2"."""
        return [self.blocks[str(i)] for i in range(self.depth)]

    def _embed(
        self, images: Float[Array, "batch height width 3"], seen: dict[str, Array] | None = None
    ) -> Float[Array, "batch*{self.num_tokens} features"]:
        """Patches and prefix tokens with their position embeddings."""
        check_images(images, self.image_size)
        patches = self.patch_embed(images)
        batch, _, width = patches.shape
        prefix = [self.cls_token[...]]
        if self.has_distillation_head:
            prefix.append(self.dist_token[...])
        prefix = [jnp.broadcast_to(token, (batch, 1, width)) for token in prefix]
        positions = whole(self.pos_embed[...])
        if self.deit3:
            tokens = jnp.concatenate([*prefix, patches + positions], axis=1)
        else:
            tokens = jnp.concatenate([*prefix, patches], axis=1) + positions
        if seen is not None:
            seen |= {"patch_embed": patches, "tokens": tokens}
        return tokens.reshape(batch * self.num_tokens, width).astype(self.residual_dtype)


def _check_image_size(image_size: tuple[int, int], patch_size: int) -> None:
    if any(side <= 0 or side % patch_size for side in image_size):
        raise ValueError(
            f"The image size {image_size[0]}x{image_size[1]} (height x width) of this vision "
            f"transformer cannot be cut into {patch_size}x{patch_size} patches; "
            f"choose image_size with both sides multiples of {patch_size}."
        )


def _check_heads(num_heads: int, width: int) -> None:
    if num_heads < 1 or width % num_heads:
        raise ValueError(f"num_heads={num_heads} does not divide width={width}; choose another.")


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"The model option {name}={rate} must be at least 0 and below 1.")
