"""One whole optimiser step of both sides: our train step, and PyTorch's losses and AdamW.

Our side is `training.step.make_train_step` itself, jitted: normalisation, teacher, distillation
loss, gradient, AdamW with its decay mask, learning rate. PyTorch's side is written from the
paper's equations 2 and 3 with PyTorch's own losses and optimiser.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from deit_jax.config.defaults import default_config
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.functional import abstract
from deit_jax.models.vit import VisionTransformer
from deit_jax.parity.gradients import Labels, gradient_rows, paired
from deit_jax.parity.layers import Difference, Section, by_layer, layer_difference
from deit_jax.parity.our_model import OurModel, PixelBatch, random_weights
from deit_jax.parity.torch_deit import TorchDeit
from deit_jax.parity.torch_side import TorchSide
from deit_jax.schema import Config
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.example import Batch
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import TrainState, create_state
from deit_jax.training.step import make_train_step
from deit_jax.trees import Tree, flatten
from deit_jax.weights.transformer_layout import to_foreign

LEARNING_RATE = 5e-4
PARAMETERS = 1e-6
"""Largest absolute difference of an updated parameter."""
NEGLIGIBLE = 1e-4
"""Share of a tensor's largest gradient below which the gradient counts as zero.

Adam divides each gradient by its own size, so rounding decides about the step of a parameter
whose gradient is rounding itself.
"""
LOSS_TERMS = ("loss", "label_loss", "distillation_loss")
_TEACHER: dict[str, Any] = dict(width=64, depth=2, num_heads=1, distilled=False)


@dataclass(frozen=True)
class Stepped:
    """One side after the step.

    Attributes:
        losses: total, label term, distillation term.
        gradients: that the optimiser got.
        params: after the update.
    """

    losses: dict[str, float]
    gradients: Tree
    params: Tree


def step_config(subject: OurModel, kind: str) -> Config:
    """Return the reference recipe without anything random, at a learning rate that shows."""
    config = default_config()
    config.model.num_classes = subject.module.num_classes
    config.distillation.update(kind=kind, weight=0.1 if kind == "soft" else 0.5)
    config.optimizer.update(learning_rate=LEARNING_RATE, per_images=0)
    # Without warm-up the first step has the full rate.
    config.schedule.warmup_epochs = 0.0
    mean, std = subject.preprocessing.mean, subject.preprocessing.std
    config.augment.update(asdict(NORMALISED), mean=mean, std=std)
    config.mix.update(asdict(UNMIXED))
    return Config.of(config)


def teacher_subject(subject: OurModel) -> OurModel:
    """Return the teacher: a small random transformer with the student's classes and images."""
    module = subject.module
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", 16)
    function, shapes, statistics = abstract(
        lambda rngs: VisionTransformer(
            VitArchitecture(patch, **_TEACHER),
            num_classes=module.num_classes,
            image_size=module.image_size,
            rngs=rngs,
        )
    )
    params, _ = random_weights(shapes, statistics, seed=7)
    return replace(subject, name="teacher", function=function, params=params, batch_stats={})


def our_step(subject: OurModel, config: Config, pixels: PixelBatch, labels: Labels) -> Stepped:
    """Run the house's train step once."""
    teacher = teacher_subject(subject) if config.distillation.kind != "none" else None
    optimizer = make_optimizer(config.optimizer, subject.params)
    step = make_train_step(
        subject.function,
        teacher.function if teacher else None,
        optimizer,
        config,
        steps_per_epoch=1.0,
    )

    def run(params: Tree, batch_stats: Tree, teacher_params: Tree, batch: Batch) -> TrainState:
        def build(rngs: Any) -> Any:
            return subject.function.merge(params, batch_stats)

        state = create_state(build, optimizer, jax.random.key(0), ema=False)
        return step(state, teacher_params, batch)

    index = np.arange(len(labels), dtype=np.int32)
    batch = {"image": pixels, "label": labels.astype(np.int32), "index": index}
    batch |= {"epoch": 0 * index, "copy": 0 * index}
    arguments = (subject.params, subject.batch_stats, teacher.params if teacher else {}, batch)
    with jax.default_matmul_precision("highest"):
        after = jax.jit(run)(*arguments)
    # After one step, Adam's first moment is (1 - b1) times the gradient.
    moments = after["opt_state"][0].mu
    return Stepped(
        losses={name: float(after["sums"][name]) for name in LOSS_TERMS},
        gradients=jax.tree.map(lambda m: np.asarray(m) / (1 - config.optimizer.b1), moments),
        params=jax.tree.map(np.asarray, after["params"]),
    )


def torch_step(
    subject: OurModel, other: TorchSide, config: Config, pixels: PixelBatch, labels: Labels
) -> Stepped:
    """Do the same with PyTorch; changes the model's parameters."""
    images, kind = subject.normalise(pixels), config.distillation.kind
    teacher_logits = None if kind == "none" else _ask_teacher(subject, images)
    optimizer = torch.optim.AdamW(
        _groups(other, config.optimizer.weight_decay),
        lr=LEARNING_RATE,
        betas=(config.optimizer.b1, config.optimizer.b2),
        eps=config.optimizer.eps,
    )
    optimizer.zero_grad(set_to_none=True)
    heads = other.head_logits(images)
    losses = torch_losses(heads, teacher_logits, torch.from_numpy(labels), config)
    losses[0].backward()
    gradients = other.gradients()
    optimizer.step()
    values = {name: float(loss.detach()) for name, loss in zip(LOSS_TERMS, losses, strict=True)}
    return Stepped(values, gradients, other.parameters())


def compare_steps(
    ours: Stepped, theirs: Stepped, layers: list[str], tolerances: tuple[float, float]
) -> list[Section]:
    """Compare losses and gradients (relative) and updated parameters (absolute).

    Args:
        ours: from `our_step`.
        theirs: from `torch_step`.
        layers: from `activations.layer_names`.
        tolerances: of losses and of gradients.
    """
    losses = (
        layer_difference(name, np.array([ours.losses[name]]), np.array([theirs.losses[name]]))
        for name in LOSS_TERMS
    )
    return [
        Section("losses of the step", tuple(losses), tolerances[0]),
        Section(
            "gradients of the step",
            gradient_rows(ours.gradients, theirs.gradients, layers),
            tolerances[1],
        ),
        Section(
            "parameters after the step",
            _parameter_rows(ours, theirs, layers),
            PARAMETERS,
            "maximum",
        ),
    ]


def _parameter_rows(ours: Stepped, theirs: Stepped, layers: list[str]) -> tuple[Difference, ...]:
    """Compare updated parameters where the gradient is not numerically zero."""
    gradients, rows = flatten(theirs.gradients), {}
    for path, (layer, mine, other) in paired(ours.params, theirs.params, layers).items():
        size = np.abs(np.asarray(gradients[path]))
        counted = size > NEGLIGIBLE * size.max(initial=0)
        left_out = int(counted.size - counted.sum())
        detail = f"{left_out} of {counted.size} without gradient" if left_out else ""
        name = ".".join(path)
        rows[name] = (layer, layer_difference(name, mine[counted], other[counted], detail))
    return by_layer(rows, "maximum")


def torch_losses(
    heads: tuple[Tensor, Tensor | None],
    teacher: Float[Tensor, "batch classes"] | None,
    labels: Tensor,
    config: Config,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return total, label term and distillation term (paper, equations 2 and 3)."""
    options, smoothing = config.distillation, config.training.label_smoothing
    student = heads[0] if heads[1] is None else heads[1]
    label = F.cross_entropy(heads[0], labels, label_smoothing=smoothing)
    if teacher is None:
        if heads[1] is None:
            return label, label, torch.zeros(())
        second = F.cross_entropy(heads[1], labels, label_smoothing=smoothing)
        return (label + second) / 2, label, second
    if options.kind == "hard":
        term = F.cross_entropy(student, teacher.argmax(-1))
    else:
        softened = F.log_softmax(student / options.temperature, -1)
        target = F.softmax(teacher / options.temperature, -1)
        parts = {"batch": len(labels), "batch_times_classes": target.numel()}[options.normaliser]
        term = F.kl_div(softened, target, reduction="sum") * options.temperature**2 / parts
    return (1 - options.weight) * label + options.weight * term, label, term


def _ask_teacher(subject: OurModel, images: np.ndarray) -> Tensor:
    teacher = teacher_subject(subject)
    module = teacher.module
    model: nn.Module = TorchDeit(
        module.num_classes, module.image_size, patch_size=module.patch_embed.patch_size, **_TEACHER
    )
    tensors = to_foreign(teacher.params, {}, "official")
    model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    with torch.no_grad():
        return model(torch.from_numpy(images.copy()).permute(0, 3, 1, 2))[0]


def _groups(other: TorchSide, weight_decay: float) -> list[dict]:
    """Decay matrices only, and of the embeddings the distillation token (reference code)."""
    spared = ("cls_token", "pos_embed", "position_embeddings")
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in other.model.named_parameters():
        groups[parameter.ndim > 1 and name.rpartition(".")[2] not in spared].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
