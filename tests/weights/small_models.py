"""Small models of timm and transformers with random weights, the same shapes as our micro ones."""

import numpy as np
import timm.models.deit
import timm.models.vision_transformer
import torch
from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTConfig,
    ViTForImageClassification,
)

PLAIN, DISTILLED = "deit_micro_patch4_16", "deit_micro_distilled_patch4_16"


def randomised(model, seed=0):
    """Every tensor random, also those that begin at zero or one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
                if name.endswith("running_var"):
                    tensor.copy_(tensor.abs() + 0.5)
                if "norm" in name and name.endswith("weight"):
                    tensor.add_(1)
    return model.eval()


def timm_model(distilled=False, image_size=(16, 16), classes=10, seed=0, **sizes):
    """timm's counterpart of `deit_micro_[distilled_]patch4_16`."""
    module = timm.models.deit.VisionTransformerDistilled
    kind = module if distilled else timm.models.vision_transformer.VisionTransformer
    shape = dict(patch_size=4, embed_dim=64, depth=3, num_heads=2) | sizes
    return randomised(kind(img_size=image_size, num_classes=classes, **shape), seed)


def transformers_model(kind, seed=0, **options):
    """transformers' counterpart; `kind` is "teacher", "deit" or "vit"."""
    config, model = {
        "teacher": (DeiTConfig, DeiTForImageClassificationWithTeacher),
        "deit": (DeiTConfig, DeiTForImageClassification),
        "vit": (ViTConfig, ViTForImageClassification),
    }[kind]
    shape = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, intermediate_size=256)
    shape |= dict(image_size=16, patch_size=4, num_labels=10, layer_norm_eps=1e-6) | options
    return randomised(model(config(**shape)), seed)


def images(size=(16, 16), batch=2, seed=1):
    return np.random.default_rng(seed).standard_normal((batch, *size, 3)).astype(np.float32)


def torch_logits(model, pixels):
    """Logits of a timm or transformers model, as numpy."""
    with torch.no_grad():
        out = model(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return getattr(out, "logits", out).numpy()


def arrays(state):
    """A state dict as numpy arrays."""
    return {name: tensor.detach().numpy() for name, tensor in state.items()}
