"""The digits recipe in plain PyTorch: the other side of `benchmarks.statistical_parity`.

Written from the paper and PyTorch's and timm's documentation, and shares nothing with deit_jax but
the numbers of a configuration and the images: initialisation, order, crops (torchvision), Mixup and
CutMix (timm), losses, AdamW, schedule and moving average are its own, and so are all draws.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ml_collections import ConfigDict
from torch import Tensor, nn

from benchmarks.torch_side import make_optimizer, soft_target_cross_entropy, timm
from deit_jax.data.formats.digits import open_digits
from deit_jax.models.registry import model_spec
from deit_jax.parity.torch_deit import TorchDeit

LAST_STEPS = 50
"""Steps over which the training loss at the end is averaged."""

Result = dict[str, Any]


class TorchRegNet(nn.Module):
    """RegNetY (arXiv 2003.13678) for inference, its sizes read off the weights; names are timm's.

    Args:
        state: tensors by name.
        strides: of the first block of each stage.
    """

    def __init__(self, state: dict[str, Tensor], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.state, self.strides = state, strides

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        x = torch.relu(self._conv_norm("stem", images, 2))
        for stage, stride in enumerate(self.strides, 1):
            block = 1
            while f"s{stage}.b{block}.conv1.conv.weight" in self.state:
                x = self._block(f"s{stage}.b{block}", x, stride if block == 1 else 1)
                block += 1
        return F.linear(x.mean((2, 3)), self.state["head.fc.weight"], self.state["head.fc.bias"])

    def _block(self, name: str, x: Tensor, stride: int) -> Tensor:
        y = torch.relu(self._conv_norm(f"{name}.conv1", x))
        y = torch.relu(self._conv_norm(f"{name}.conv2", y, stride))
        squeezed = torch.relu(self._conv(f"{name}.se.fc1", y.mean((2, 3), keepdim=True)))
        y = y * torch.sigmoid(self._conv(f"{name}.se.fc2", squeezed))
        y = self._conv_norm(f"{name}.conv3", y)
        if f"{name}.downsample.conv.weight" in self.state:
            x = self._conv_norm(f"{name}.downsample", x, stride)
        return torch.relu(x + y)

    def _conv_norm(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        x = self._conv(f"{name}.conv", x, stride)
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.bn.{part}"] for part in names))

    def _conv(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state.get(f"{name}.bias")
        groups = x.shape[1] // weight.shape[1]
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)


def load_teacher(path: Path) -> TorchRegNet:
    """Read the convnet called "regnety_micro" from a .safetensors file with timm's names."""
    from safetensors.torch import load_file

    return TorchRegNet(load_file(path), strides=(1, 2, 2)).eval()


def build_student(config: ConfigDict) -> TorchDeit:
    """Build and initialise the student as the paper's reference does: all 0.02 but the patches."""
    sizes: Any = model_spec(config.model.name).architecture
    model = TorchDeit(config.model.num_classes, tuple(config.model.image_size), **asdict(sizes))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for token in (model.cls_token, model.dist_token, model.pos_embed):
        if token is not None:
            nn.init.trunc_normal_(token, std=0.02)
    return model


def train(config: ConfigDict, teacher: TorchRegNet | None) -> Result:
    """Train one student and return its losses and accuracies (percent), as deit_jax reports them.

    Args:
        config: numbers of the recipe; `seed` decides all draws, which are not those of deit_jax.
        teacher: for soft and hard distillation.
    """
    # Threads that meet after every one of these small operations cost more than they bring.
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)  # timm's Mixup draws from NumPy's global state.
    images, labels = digits("train")
    model = build_student(config)
    average = copy.deepcopy(model)
    optimizer = make_optimizer(model, config.optimizer)
    mixup = timm.data.Mixup(
        mixup_alpha=config.mix.mixup_alpha,
        cutmix_alpha=config.mix.cutmix_alpha,
        prob=config.mix.probability,
        switch_prob=config.mix.switch_probability,
        label_smoothing=config.training.label_smoothing,
        num_classes=config.model.num_classes,
    )
    steps_per_epoch = len(images) / config.training.batch_size
    steps = round(config.schedule.epochs * steps_per_epoch)
    order, losses = shuffled(len(images), config.training.batch_size), []
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step / steps_per_epoch, config)
        chosen = next(order)
        batch = normalised(shifted(images[chosen], config.augment.crop_padding), config)
        batch, targets = mixup(batch, labels[chosen])
        with torch.no_grad():
            answers = None if teacher is None else teacher(batch)
        loss = student_loss(model(batch), targets, answers, config.distillation)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(config.ema.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)
        losses.append(loss.item())
    weights = {"raw": evaluate(model, config), "ema": evaluate(average, config)}
    return {
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "last_steps": LAST_STEPS,
        "train_loss": float(np.mean(losses[-LAST_STEPS:])),
        "evaluation": weights,
    }


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Return the images (uint8, channels first) and labels of a split."""
    source = open_digits(split)
    return torch.from_numpy(source.images).permute(0, 3, 1, 2), torch.from_numpy(
        source.labels
    ).long()


def shuffled(count: int, batch_size: int) -> Iterator[Tensor]:
    """Yield batches of indices from one random order after the other, none left out."""
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(count)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def shifted(images: Tensor, padding: int) -> Tensor:
    """Pad every image with black and cut out its size at a random place (torchvision)."""
    from torchvision.transforms import RandomCrop

    crop = RandomCrop(tuple(images.shape[-2:]), padding=padding)
    return torch.stack([crop(image) for image in images])


def normalised(images: Tensor, config: ConfigDict) -> Tensor:
    """Return float32 images of the student's and teacher's mean and deviation."""
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (config.augment.mean, config.augment.std)
    )
    return (images.float() / 255 - mean) / std


def rate_at(epoch: float, config: ConfigDict) -> float:
    """Cosine decay, whose first epochs a linear warm-up replaces (paper, Table 9)."""
    schedule = config.schedule
    peak = config.optimizer.learning_rate * config.training.batch_size / 512
    if epoch < schedule.warmup_epochs:
        start = schedule.warmup_learning_rate
        return start + (peak - start) * epoch / schedule.warmup_epochs
    low = schedule.final_learning_rate
    return low + (peak - low) * (1 + math.cos(math.pi * epoch / schedule.epochs)) / 2


def student_loss(
    heads: tuple[Tensor, Tensor | None],
    targets: Tensor,
    answers: Tensor | None,
    options: ConfigDict,
) -> Tensor:
    """Equations 2 and 3 of the paper; without a teacher the cross-entropy of the class head."""
    logits, second = heads
    label = soft_target_cross_entropy(logits, targets)
    if answers is None or second is None:
        return label
    if options.kind == "hard":
        term = F.cross_entropy(second, answers.argmax(dim=1))
    else:
        tau = options.temperature
        divergence = nn.KLDivLoss(reduction="batchmean", log_target=True)
        term = tau**2 * divergence(
            F.log_softmax(second / tau, dim=1), F.log_softmax(answers / tau, dim=1)
        )
    return (1 - options.weight) * label + options.weight * term


@torch.no_grad()
def evaluate(model: TorchDeit, config: ConfigDict) -> dict[str, dict[str, float]]:
    """Return top-1 (percent) and cross-entropy of each head, and of the mean of both logits."""
    model.eval()
    images, labels = digits(config.data.eval_split)
    logits, second = model(normalised(images, config))
    heads = {"class": logits}
    if second is not None:
        heads |= {"distillation": second, "fused": (logits + second) / 2}
    return {
        head: {
            "top1": 100 * (answer.argmax(1) == labels).float().mean().item(),
            "loss": F.cross_entropy(answer, labels).item(),
        }
        for head, answer in heads.items()
    }
