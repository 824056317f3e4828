"""Options of networks in timm and transformers: without effect, computed here, or refused by name.

An option that is not known is refused as well, since it may change the result without a trace.
Sources: timm 1.0.31 (vision_transformer.py, resnet.py, regnet.py, efficientnet.py and its builder),
transformers 4 and 5 (configuration_utils.py, configuration_vit.py, configuration_deit.py).
"""

from collections.abc import Mapping
from typing import Any

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.block import MLP_RATIO
from deit_jax.models.spec import ModelSpec
from deit_jax.weights.description.config import Description, named_transformer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TRAINING = _words(
    """
    num_classes img_size drop_rate pos_drop_rate patch_drop_rate proj_drop_rate attn_drop_rate
    drop_path_rate drop_block_rate weight_init fix_init zero_init_last zero_init_residual
    bn_momentum dynamic_img_size dynamic_img_pad strict_img_size num_features distilled_training
    pretrained pretrained_cfg pretrained_cfg_overlay pretrained_strict checkpoint_path cache_dir
    scriptable exportable no_jit device dtype
    """
)
"""Options of timm without effect on what a complete classifier computes."""

_TIMM_TRANSFORMER: dict[str, tuple[Any, ...]] = {
    "in_chans": (3,),
    "global_pool": ("token",),
    "mlp_ratio": (MLP_RATIO,),
    "qkv_bias": (True,),
    "qk_norm": (False,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "proj_bias": (True,),
    "class_token": (True,),
    "pos_embed": ("learn",),
    "reg_tokens": (0,),
    "pre_norm": (False,),
    "final_norm": (True,),
    "fc_norm": (None, False),
    "pool_include_prefix": (False,),
    "embed_layer": (None,),
    "embed_norm_layer": (None,),
    "norm_layer": (None, "layernorm"),
    "act_layer": (None, "gelu"),
    "block_fn": (None,),
    "mlp_layer": (None,),
    "attn_layer": (None, ""),
}
"""Values with which timm's networks are those of this package."""

_TIMM_CONVNET: dict[str, tuple[Any, ...]] = {
    "in_chans": (3,),
    "global_pool": ("avg",),
    "output_stride": (32,),
    "norm_layer": (None, "batchnorm", "batchnorm2d"),
    "aa_layer": (None, ""),
    "stem_type": ("",),
    "replace_stem_pool": (False,),
    "block_reduce_first": (1,),
    "down_kernel_size": (1,),
    "avg_down": (False,),
    "cardinality": (1,),
    "base_width": (64,),
    "stem_width": (64,),
    "stem_kernel_size": (3,),
    "fix_stem": (False,),
    "se_layer": (None,),
    "features_only": (False,),
}

_TRANSFORMERS: dict[str, tuple[Any, ...]] = {
    "num_channels": (3,),
    "hidden_act": ("gelu", "gelu_python"),
    "qkv_bias": (True,),
}
_TRANSFORMERS_DEFAULTS = {
    "num_attention_heads": 12,
    "layer_norm_eps": 1e-12,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "intermediate_size": 3072,
    "patch_size": 16,
}
_TRANSFORMERS_HARMLESS = _words(
    """
    architectures model_type image_size id2label label2id num_labels problem_type dtype torch_dtype
    attention_probs_dropout_prob hidden_dropout_prob initializer_range encoder_stride pooler_act
    pooler_output_size transformers_version finetuning_task task_specific_params name_or_path
    chunk_size_feed_forward gradient_checkpointing torchscript use_bfloat16 use_cache return_dict
    is_encoder_decoder is_decoder add_cross_attention cross_attention_hidden_size
    tie_encoder_decoder tie_word_embeddings tokenizer_class tf_legacy_loss prefix bos_token_id
    pad_token_id eos_token_id sep_token_id decoder_start_token_id max_length min_length do_sample
    early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p typical_p
    repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size
    bad_words_ids num_return_sequences forced_bos_token_id forced_eos_token_id
    remove_invalid_values exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    output_attentions output_hidden_states output_scores return_dict_in_generate attn_implementation
    decoder_num_attention_heads decoder_hidden_size decoder_num_hidden_layers
    decoder_intermediate_size mask_ratio norm_pix_loss
    """
)
"""Keys without a part in classification: of every configuration, of training, of MAE's decoder."""
_EMPTY: tuple[Any, ...] = (None, False, "", [], {})


def check_timm_transformer(said: Description, sizes: VitArchitecture) -> None:
    """Refuse options of timm with which another network than ours is meant.

    Raises:
        ValueError: names the option; the message lacks the file's name.
    """
    options = dict(said.options)
    for option in ("num_heads", "epsilon", "init_values"):
        options.pop(option, None)
    for option, size in (
        ("patch_size", sizes.patch_size),
        ("embed_dim", sizes.width),
        ("depth", sizes.depth),
    ):
        _check_size(said, option, options.pop(option, size), size)
    # Position embeddings for the class token: with LayerScale ours has none, without it has one.
    named = named_transformer(said.name)
    without = options.pop("no_embed_class", named.deit3 if named else sizes.deit3)
    if bool(without) != sizes.deit3:
        other = "with" if sizes.deit3 else "without"
        raise ValueError(
            f"{said.where} says no_embed_class={without}; {other} LayerScale only "
            f"no_embed_class={sizes.deit3} is computed here."
        )
    _check(said, options, _TIMM_TRANSFORMER, _TRAINING)


def check_timm_convnet(said: Description, spec: ModelSpec) -> None:
    """Refuse options of timm with which another network than the registered one is meant.

    Raises:
        ValueError: names the option; the message lacks the file's name.
    """
    sizes = spec.convnet
    numerics: dict[str, tuple[Any, ...]] = {}
    if sizes:
        # An activation of two names.
        swish = ("swish",) if sizes.activation == "silu" else ()
        numerics = {
            "act_layer": (None, sizes.activation, *swish),
            "pad_type": ("same" if sizes.same_padding else "",),
            "bn_eps": (None, sizes.epsilon),
        }
    _check(said, said.options, _TIMM_CONVNET | numerics, _TRAINING)


def check_transformers(said: Description, sizes: VitArchitecture, hidden: int) -> tuple[Any, Any]:
    """Refuse a configuration of transformers that is of another network than ours.

    `hidden` is the number of features inside its MLPs.

    Returns:
        Number of heads and the normalisation's epsilon, for `check_heads` and `check_epsilon`.

    Raises:
        ValueError: names the key; the message lacks the file's name.
    """
    options = _TRANSFORMERS_DEFAULTS | dict(said.options)
    heads, epsilon = options.pop("num_attention_heads"), options.pop("layer_norm_eps")
    for option, size in (
        ("hidden_size", sizes.width),
        ("num_hidden_layers", sizes.depth),
        ("patch_size", sizes.patch_size),
        ("intermediate_size", hidden),
    ):
        _check_size(said, option, options.pop(option), size)
    unknown = options.keys() - _TRANSFORMERS.keys()
    # What is off or empty changes nothing.
    harmless = {key for key in unknown if key.startswith("_") or options[key] in _EMPTY}
    _check(said, options, _TRANSFORMERS, _TRANSFORMERS_HARMLESS | harmless)
    return heads, epsilon


def check_heads(said: Description, heads: Any, width: int) -> int:
    """Return the number of heads if a width can be cut into so many.

    Raises:
        ValueError: it cannot.
    """
    if type(heads) is not int or heads < 1 or width % heads:
        raise ValueError(
            f"{said.where} says {_short(heads)} attention heads, into which a width of {width} "
            "cannot be cut."
        )
    return heads


def check_epsilon(said: Description, epsilon: Any) -> float:
    """Return what is added to the variance if it is a small number.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
        raise ValueError(
            f"{said.where} says layer_norm_eps={_short(epsilon)}, which is no epsilon."
        )
    return float(epsilon)


def _check(
    said: Description,
    options: Mapping[str, Any],
    computed: Mapping[str, tuple[Any, ...]],
    harmless: frozenset[str] | set[str],
) -> None:
    for option, value in options.items():
        if option in computed:
            if value not in computed[option]:
                ours = " or ".join(repr(v) for v in computed[option] if v not in (None, ""))
                raise ValueError(
                    f"{said.where} says {option}={_short(value)}, which is not computed here"
                    f"{f' ({ours} is)' if ours else ''}; it would give other results."
                )
        elif option not in harmless:
            raise ValueError(
                f"{said.where} says {option}={_short(value)}, which is not known here and may "
                "change the result; if it does not, remove it there."
            )


def _check_size(said: Description, option: str, value: Any, size: int) -> None:
    if value not in (size, [size, size]):
        raise ValueError(
            f"{said.where} says {option}={_short(value)}, but the tensors are of {size}; it is not "
            "of this file."
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
