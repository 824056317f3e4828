"""The `config.json` with which timm and transformers build the model that weights are for."""

from typing import Any

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.block import MLP_RATIO
from deit_jax.models.registry import find_model
from deit_jax.trees import Tree
from deit_jax.weights.convnet_names import convnet_names
from deit_jax.weights.description.facts import Facts
from deit_jax.weights.description.image_processor import to_timm


def timm_config(
    model_name: str,
    params: Tree,
    facts: Facts,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    num_heads: int,
) -> dict[str, Any]:
    """Return what timm's `create_model("local-dir:...", pretrained=True)` reads.

    Args:
        model_name: registered name, or "" for a transformer of its own sizes.
        params: complete parameters.
        facts: preprocessing, names of the classes.
        num_classes: of each head.
        image_size: (height, width) in pixels.
        num_heads: of the attention; 0 for convnets.

    Raises:
        ValueError: timm has no such model, or cannot prepare images like that.
    """
    spec = find_model(model_name)
    config: dict[str, Any] = {"architecture": model_name, "num_classes": num_classes}
    if spec and spec.convnet:
        if not spec.in_timm:
            raise ValueError(
                f"timm has no {model_name}, so no directory of timm can hold it; "
                "`convert` writes a .safetensors file, `export` other formats."
            )
        ends = [(*path, "kernel") for path in (spec.module.STEM, *spec.heads)]
        names = convnet_names(model_name, ends, "timm").values()
        first, *heads = (name.removesuffix(".weight") for name in names)
    else:
        sizes = VitArchitecture.of(params, num_heads)
        if not spec or not spec.in_timm:
            # Any of timm's DeiTs, given all sizes, becomes the one that is wanted.
            config["architecture"] = "deit_tiny_patch16_224"
            if sizes.distilled:
                config["architecture"] = "deit_tiny_distilled_patch16_224"
            if sizes.deit3:
                config["architecture"] = "deit3_small_patch16_224"
        config["model_args"] = {"img_size": list(image_size), **_sizes(sizes)}
        first, heads = "patch_embed.proj", ["head", "head_dist"][: sizes.prefix_tokens]
    config["pretrained_cfg"] = {
        "input_size": [3, *image_size],
        "fixed_input_size": "model_args" in config,
        **to_timm(facts.preprocessing, image_size),
        "num_classes": num_classes,
        "first_conv": first,
        "classifier": heads if len(heads) > 1 else heads[0],
    }
    if len(facts.labels) == num_classes:
        config["label_names"] = list(facts.labels)
    return config


def transformers_config(
    params: Tree,
    facts: Facts,
    *,
    num_classes: int,
    image_size: tuple[int, int],
    num_heads: int,
    epsilon: float,
) -> dict[str, Any]:
    """Return what transformers' `from_pretrained` reads; arguments as for `timm_config`.

    `epsilon` is of the layer normalisation.
    """
    if "head_dist" in params:
        kind, model_type = "DeiTForImageClassificationWithTeacher", "deit"
    elif "dist_token" in params:
        kind, model_type = "DeiTForImageClassification", "deit"
    else:
        kind, model_type = "ViTForImageClassification", "vit"
    named = len(facts.labels) == num_classes
    labels = facts.labels if named else [f"LABEL_{index}" for index in range(num_classes)]
    height, width = image_size
    sizes = _sizes(VitArchitecture.of(params, num_heads))
    return {
        "architectures": [kind],
        "model_type": model_type,
        "hidden_size": sizes["embed_dim"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": num_heads,
        "intermediate_size": MLP_RATIO * sizes["embed_dim"],
        "patch_size": sizes["patch_size"],
        "image_size": height if height == width else [height, width],
        "num_channels": 3,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "layer_norm_eps": epsilon,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }


def _sizes(sizes: VitArchitecture) -> dict[str, int]:
    """Sizes of a transformer, by timm's names."""
    return {
        "patch_size": sizes.patch_size,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": sizes.num_heads,
    }
