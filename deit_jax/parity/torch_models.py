"""The PyTorch models to compare with: timm's, transformers', and our own plain PyTorch.

Each is built as the file of weights describes its network, where its description is in the words of
that project; else with the sizes of our model. Weights go in strictly: none is missing, and left
over is what is no part of the network.
"""

import re
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from deit_jax.extras import require
from deit_jax.models.layers import LAYER_SCALE_INIT
from deit_jax.models.vit import VisionTransformer
from deit_jax.parity.our_model import OurModel
from deit_jax.parity.torch_deit import TorchDeit
from deit_jax.parity.torch_side import TorchSide
from deit_jax.trees import flatten
from deit_jax.weights.description.config import CONFIG
from deit_jax.weights.transformer_layout import detect_layout, to_foreign

Against = Literal["timm", "transformers", "official"]
AGAINST: tuple[str, ...] = get_args(Against)

State = dict[str, Tensor]
Built = tuple[str, nn.Module, Callable[[str], str]]

# Modules of transformers 5 (models/deit, models/vit) whose outputs are our intermediate results.
_TRANSFORMERS = (
    (r"patch_embed", "{root}.embeddings.patch_embeddings"),
    (r"tokens", "{root}.embeddings"),
    (r"blocks\.(\d+)\.norm1", r"{root}.layers.\1.layernorm_before"),
    (r"blocks\.(\d+)\.attn", r"{root}.layers.\1.attention"),
    (r"blocks\.(\d+)\.norm2", r"{root}.layers.\1.layernorm_after"),
    (r"blocks\.(\d+)\.mlp", r"{root}.layers.\1.mlp"),
    (r"blocks\.(\d+)", r"{root}.layers.\1"),
    (r"norm", "{root}.layernorm"),
    (r"head", "{head}"),
    (r"head_dist", "distillation_classifier"),
)
# Options of timm that would fetch other weights than those of the file.
_TIMM_LOADING = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path")
# Modules of timm that are not called as our results.
_TIMM = {
    ("vit", "tokens"): "blocks.0",
    ("resnet", "stem"): "maxpool",
    ("resnet", "head"): "fc",
    ("efficientnet", "stem"): "bn1",
    ("efficientnet", "tail"): "bn2",
    ("efficientnet", "head"): "classifier",
}


def build_torch_side(subject: OurModel, against: Against) -> TorchSide:
    """Build the other side with the subject's sizes and weights.

    A file that has the other side's own tensor names goes into it as it is, read by PyTorch or
    safetensors: then a mistake in our table of names shows. Otherwise our table converts.

    Raises:
        ModuleNotFoundError: timm or transformers is not installed; names the extra.
        ValueError: the other side has no such architecture, or does not take the weights.
    """
    build = {"timm": _timm, "transformers": _transformers, "official": _official}[against]
    transformer = is_vision_transformer(subject)
    if against != "timm" and not transformer:
        raise ValueError(
            f"{subject.name} is a convnet, which {against} does not have; compare it with timm."
        )
    # The names of the reference are timm's, but for DeiT III.
    plain = against == "official" and not subject.module.architecture.deit3
    layout = "timm" if plain else against
    tensors, loaded_from = subject.tensors, "the file itself"
    if tensors is None or detect_layout(tensors) != layout:
        tensors = to_foreign(subject.params, subject.batch_stats, layout, subject.name)
        loaded_from = "our parameters, renamed"
    state = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
    title, model, module_name = build(subject, state)
    return TorchSide(
        title=title,
        model=model.eval(),
        module_name=module_name,
        layout=layout,
        convnet="" if transformer else subject.name,
        paths=tuple(flatten(subject.params)),
        loaded_from=loaded_from,
    )


def is_vision_transformer(subject: OurModel) -> bool:
    """Return whether it is a vision transformer; else it is a convnet."""
    return isinstance(subject.module, VisionTransformer)


def _sizes(subject: OurModel) -> dict[str, Any]:
    """Return what `TorchDeit` needs to know of a transformer."""
    return asdict(subject.module.architecture) | {"epsilon": subject.module.epsilon}


def _official(subject: OurModel, state: State) -> Built:
    sizes = _sizes(subject)
    model = TorchDeit(subject.module.num_classes, subject.module.image_size, **sizes)
    _load(model, state, subject.left_over)
    return f"plain PyTorch {torch.__version__}", model, partial(_timm_module, "vit")


def _timm(subject: OurModel, state: State) -> Built:
    timm = require("timm")
    ours, transformer = subject.module, is_vision_transformer(subject)
    options: dict[str, Any] = {"num_classes": ours.num_classes}
    if transformer:
        options["img_size"] = ours.image_size
    if own := _timm_s_own(timm, subject):
        said = {k: v for k, v in subject.said.options.items() if k not in _TIMM_LOADING}
        model = timm.create_model(own, **said | options)
    elif transformer and not timm.is_model(subject.name):
        # Sizes that are not published, built from timm's classes.
        sizes = _sizes(subject)
        options |= {"embed_dim": sizes.pop("width"), "norm_layer": _norm(sizes.pop("epsilon"))}
        if sizes.pop("deit3"):
            options |= {"no_embed_class": True, "init_values": LAYER_SCALE_INIT}
        classes = require("timm.models")
        build = (
            classes.deit.VisionTransformerDistilled
            if sizes.pop("distilled")
            else classes.vision_transformer.VisionTransformer
        )
        model = build(**sizes, **options)
    elif not timm.is_model(subject.name):
        raise ValueError(
            f"timm {timm.__version__} has no model {subject.name}, so there is nothing to compare "
            "with; choose another model."
        )
    else:
        if transformer:
            options |= {"depth": ours.depth, "num_heads": ours.num_heads}
            options["norm_layer"] = _norm(ours.epsilon)
        model = timm.create_model(subject.name, **options)
    _load(model, state, subject.left_over)
    return f"timm {timm.__version__}", model, partial(_timm_module, subject.module.FAMILY)


def _timm_s_own(timm: Any, subject: OurModel) -> str:
    """Return the architecture that a config.json in timm's words describes, or ""."""
    said = subject.said
    described = said.words == "timm" and said.where == CONFIG and timm.is_model(said.name)
    return said.name if described else ""


def _norm(epsilon: float) -> Callable[..., nn.Module]:
    return partial(nn.LayerNorm, eps=epsilon)


def _timm_module(family: str, name: str) -> str:
    """Name the module that returns a result of ours; for tokens the one that they enter."""
    return _TIMM.get((family, name), name)


def _transformers(subject: OurModel, state: State) -> Built:
    package = require("transformers")
    # What the package offers lazily fails with an error that does not say why.
    require("transformers.models.vit.modeling_vit")
    sizes = _sizes(subject)
    config_class, model_class = (
        (package.DeiTConfig, package.DeiTForImageClassificationWithTeacher)
        if sizes["distilled"]
        else (package.ViTConfig, package.ViTForImageClassification)
    )
    if subject.said.words == "transformers":
        config = config_class.from_dict(dict(subject.said.options))
    else:
        config = config_class(
            hidden_size=sizes["width"],
            num_hidden_layers=sizes["depth"],
            num_attention_heads=sizes["num_heads"],
            intermediate_size=4 * sizes["width"],
            patch_size=sizes["patch_size"],
            # Its default, 1e-12, is not what DeiT was trained with.
            layer_norm_eps=sizes["epsilon"],
        )
    config.image_size = subject.module.image_size
    config.num_labels = subject.module.num_classes
    package.utils.logging.set_verbosity_error()
    package.utils.logging.disable_progress_bar()
    # Through its own loader, which knows the names that its files have had.
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True
    )
    unexpected = set(report["unexpected_keys"]) - subject.left_over
    _refuse(report["missing_keys"], unexpected, report["mismatched_keys"])
    root, head = ("deit", "cls_classifier") if sizes["distilled"] else ("vit", "classifier")

    def module_name(name: str) -> str:
        for pattern, module in _TRANSFORMERS:
            if re.fullmatch(pattern, name):
                return re.sub(pattern, module, name).format(root=root, head=head)
        return name

    return f"transformers {package.__version__}", model.float(), module_name


def _load(model: nn.Module, state: State, left_over: frozenset[str]) -> None:
    wanted = model.state_dict()
    state = {name: t for name, t in state.items() if name in wanted or name not in left_over}
    shapes = [n for n in wanted if n in state and wanted[n].shape != state[n].shape]
    _refuse(wanted.keys() - state.keys(), state.keys() - wanted.keys(), shapes)
    model.load_state_dict(state)


def _refuse(missing: Any, unexpected: Any, shapes: Any) -> None:
    found = [
        f"{len(names)} {what} ({', '.join(map(str, sorted(names)[:2]))})"
        for what, names in (
            ("missing", missing),
            ("not known there", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if found:
        raise ValueError(
            f"PyTorch's model does not take these weights: tensors {'; '.join(found)}."
        )
