"""A run of the train step, and the same one as the reference's training loop in plain PyTorch.

The PyTorch side is written from the semantics of the reference (engine.py, losses.py, main.py and
the scheduler, Mixup and ModelEma of timm 0.3.2): loop over epochs, schedule, decay groups, mixing,
losses, average. Weights, pixels and mixing draws are the same on both sides; nothing else is.
"""

import copy
import math
from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import torch
import torch.nn.functional as F
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer as TimmTransformer

from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import draw_mixing
from deit_jax.config.defaults import default_config
from deit_jax.config.reference import apply_reference
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.functional import abstract, initialise
from deit_jax.models.vit import VisionTransformer
from deit_jax.schema import Config
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.freezing import trainable
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import create_state
from deit_jax.training.step import make_train_step
from deit_jax.weights.transformer_layout import to_foreign

BATCH, GROUP, CLASSES = 16, 8, 10
PEAK, WARMUP_EPOCHS, EPOCHS = 2e-3, 2, 5
MIXING = replace(UNMIXED, mixup_alpha=0.8, cutmix_alpha=1.0, group=GROUP)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZES = dict(patch_size=4, depth=2, num_heads=2)


def recipe(kind, reference=False, **changes):
    """The configuration of a run; `changes` are keys of its group "training"."""
    config = default_config()
    config.reference = reference
    config.model.num_classes, config.model.drop_path_rate = CLASSES, 0.0
    config.training.batch_size = BATCH
    config.optimizer.learning_rate = PEAK * 512 / BATCH
    config.schedule.epochs, config.schedule.warmup_epochs = float(EPOCHS), float(WARMUP_EPOCHS)
    config.ema.decay = 0.9
    config.log.every_steps = 1
    config.distillation.kind = kind
    config.distillation.weight = 0.1 if kind == "soft" else 0.5
    config.training.update(changes)
    assert apply_reference(config) == []
    return config


def build_transformer(distilled, rngs):
    sizes = VitArchitecture(width=32, distilled=distilled, **SIZES)
    return VisionTransformer(sizes, num_classes=CLASSES, image_size=(16, 16), rngs=rngs)


def batches(steps_per_epoch):
    rng = np.random.default_rng(0)
    for step in range(EPOCHS * steps_per_epoch):
        yield {
            "image": rng.integers(0, 256, (BATCH, 16, 16, 3), dtype=np.uint8),
            "label": rng.integers(0, CLASSES, BATCH).astype(np.int32),
            "epoch": np.full(BATCH, step // steps_per_epoch, np.int32),
            "index": np.arange(BATCH, dtype=np.int32),
            "copy": np.full(BATCH, step, np.int32),
        }


@cache
def initial_weights(distilled, seed):
    make = jax.jit(partial(initialise, partial(build_transformer, distilled)))
    return make(jax.random.key(seed))[0]


def our_run(config, distilled, steps_per_epoch, mixing=MIXING):
    """Train for all epochs; return the weights at the start, the teacher's, losses and state."""
    student, params, _ = abstract(partial(build_transformer, distilled))
    teacher, _, _ = abstract(partial(build_transformer, False))
    optimizer = make_optimizer(config.optimizer, params, trainable(params, config))
    augment = replace(NORMALISED, mean=MEAN, std=STD)
    config = replace(Config.of(config), augment=augment, mix=mixing)
    step = make_train_step(
        student,
        teacher if config.distillation.kind != "none" else None,
        optimizer,
        config,
        steps_per_epoch=steps_per_epoch,
    )
    start = initial_weights(distilled, 0)
    state = create_state(lambda _: student.merge(start, {}), optimizer, jax.random.key(0), ema=True)
    # Ten times larger weights: a teacher that is sure of its decisions.
    teacher_params = jax.tree.map(lambda leaf: 10 * leaf, initial_weights(False, 1))
    losses, compiled = [], jax.jit(step)
    for batch in batches(steps_per_epoch):
        state = compiled(state, teacher_params, batch)
        losses.append(float(state["sums"]["loss"]))
    return start, teacher_params, losses, state


def torch_model(params, distilled):
    kind = VisionTransformerDistilled if distilled else TimmTransformer
    model = kind(img_size=16, embed_dim=32, num_classes=CLASSES, **SIZES)
    tensors = to_foreign(jax.device_get(params), {}, "timm")
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tensors.items()})
    if distilled:
        model.set_distilled_training(True)
    return model.train()


def torch_mix(images, targets, choices):
    """Mixup or CutMix of every process's share of the batch with itself in reverse order."""
    mixed_images, mixed_targets = [], []
    for first in range(0, BATCH, GROUP):
        x, y = images[first : first + GROUP].clone(), targets[first : first + GROUP]
        weight = float(choices.target_weight[first])
        if bool(choices.cutmix[first]):
            top, bottom, left, right = (
                int(v[first]) for v in (choices.top, choices.bottom, choices.left, choices.right)
            )
            x[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        else:
            x = x * weight + x.flip(0) * (1 - weight)
        mixed_images.append(x)
        mixed_targets.append(y * weight + y.flip(0) * (1 - weight))
    return torch.cat(mixed_images), torch.cat(mixed_targets)


def torch_loss(outputs, teacher_logits, targets, config):
    """The paper's equations 2 and 3; the divisor as the configuration has it."""
    logits, second = outputs if isinstance(outputs, tuple) else (outputs, None)
    options = config.distillation

    def soft_target(z):
        return torch.sum(-targets * F.log_softmax(z, dim=-1), dim=-1).mean()

    if options.kind == "none":
        if second is None or config.reference:
            return soft_target(logits)
        return (soft_target(logits) + soft_target(second)) / 2
    student = logits if second is None else second
    if options.kind == "hard":
        term = F.cross_entropy(student, teacher_logits.argmax(dim=1))
    else:
        tau = options.temperature
        term = F.kl_div(
            F.log_softmax(student / tau, dim=1),
            F.log_softmax(teacher_logits / tau, dim=1),
            reduction="sum",
            log_target=True,
        ) * (tau * tau / (student.numel() if config.reference else len(student)))
    return soft_target(logits) * (1 - options.weight) + term * options.weight


def torch_cosub(outputs, targets):
    """Four quarters, as in the reference's engine, which always has the binary loss."""
    one, other = torch.split(outputs, BATCH)
    term = F.binary_cross_entropy_with_logits
    taught = term(one, other.detach().sigmoid()) + term(other, one.detach().sigmoid())
    return (term(one, targets) + term(other, targets) + taught) / 4


def freeze(model, parts):
    for name, parameter in model.named_parameters():
        head = name.startswith(("head.", "head_dist."))
        attention = ".attn." in name or name == "pos_embed"
        parameter.requires_grad = parts == "all" or head or (parts == "attention" and attention)


def rate_at(time):
    if time < WARMUP_EPOCHS:
        return 1e-6 + time * (PEAK - 1e-6) / WARMUP_EPOCHS
    return 1e-5 + 0.5 * (PEAK - 1e-5) * (1 + math.cos(math.pi * time / EPOCHS))


def torch_run(start, teacher_params, config, distilled, steps_per_epoch, mixing=MIXING):
    """The same run in plain PyTorch; return losses, model and average."""
    model, teacher = torch_model(start, distilled), torch_model(teacher_params, False).eval()
    average = copy.deepcopy(model)
    model.train(not config.training.eval_mode)
    freeze(model, config.training.parts)
    spared = ("pos_embed", "cls_token")
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if p.ndim == 1 or n in spared], "weight_decay": 0.0},
        {"params": [p for n, p in named if p.ndim > 1 and n not in spared], "weight_decay": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate_at(0), eps=1e-8)
    losses, draw = [], jax.jit(lambda keys: draw_mixing(purpose(keys, "mix"), mixing, 16, 16))
    for step, batch in enumerate(batches(steps_per_epoch)):
        epoch, within = divmod(step, steps_per_epoch)
        if not config.reference:
            time = step / steps_per_epoch
        elif within == 0 and epoch > 0:
            # The schedule was called at the end of the last epoch, with its number.
            time = epoch - 1
        else:
            time = None
        if time is not None:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(time)
        pixels = (batch["image"] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
        images = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
        off = 0.1 / CLASSES
        labels = torch.from_numpy(batch["label"]).long()
        targets = torch.full((BATCH, CLASSES), off).scatter_(1, labels[:, None], 1 - 0.1 + off)
        if mixing.active:
            keys = image_keys(config.seed, batch["epoch"], batch["index"], batch["copy"])
            choices = jax.device_get(draw(keys))
            images, targets = torch_mix(images, targets, choices)
        with torch.no_grad():
            teacher_logits = teacher(images)
        if config.training.cosub:
            loss = torch_cosub(model(torch.cat([images, images])), targets)
        else:
            loss = torch_loss(model(images), teacher_logits, targets, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.copy_(mean * 0.9 + (1 - 0.9) * value)
        losses.append(loss.item())
    return losses, model, average
