"""The `config.json` with which timm and transformers build the model that weights are for."""

from typing import Any

from deit_jax.models.block import MLP_RATIO
from deit_jax.trees import Tree
from deit_jax.weights.convnet_names import convnet_family
from deit_jax.weights.description.facts import Facts
from deit_jax.weights.description.image_processor import to_timm

# The first convolution and the head, by timm's names.
_ENDS = {
    None: ("patch_embed.proj", "head"),
    "regnet": ("stem.conv", "head.fc"),
    "resnet": ("conv1", "fc"),
    "efficientnet": ("conv_stem", "classifier"),
}


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
    family = convnet_family(model_name)
    if family and "_micro" in model_name:
        raise ValueError(f"timm has no {model_name}; name a .safetensors file to write to.")
    first, head = _ENDS[family]
    config: dict[str, Any] = {"architecture": model_name, "num_classes": num_classes}
    distilled = "dist_token" in params
    if not family:
        if not model_name or "_micro" in model_name:
            # Any of timm's DeiTs, given all sizes, becomes the one that is wanted.
            config["architecture"] = f"deit_tiny_{'distilled_' if distilled else ''}patch16_224"
            if "ls1" in params["blocks"]["0"]:
                config["architecture"] = "deit3_small_patch16_224"
        config["model_args"] = {"img_size": list(image_size), **_sizes(params, num_heads)}
    config["pretrained_cfg"] = {
        "input_size": [3, *image_size],
        "fixed_input_size": not family,
        **to_timm(facts.preprocessing, image_size),
        "num_classes": num_classes,
        "first_conv": first,
        "classifier": [head, "head_dist"] if distilled else head,
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
    sizes = _sizes(params, num_heads)
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


def _sizes(params: Tree, num_heads: int) -> dict[str, int]:
    """Sizes of a transformer, by timm's names."""
    patch, _, _, width = params["patch_embed"]["proj"]["kernel"].shape
    depth = len(params["blocks"])
    return {"patch_size": patch, "embed_dim": width, "depth": depth, "num_heads": num_heads}
