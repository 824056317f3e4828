"""The same work in PyTorch with timm's models: the reference's step, eager or compiled.

As deit_jax's step it normalises uint8 images on the device, asks the teacher, and updates weights
and their moving average. Importing this module imports torch and timm.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cases import Case, train_config
from benchmarks.hardware import fastest_product, product_side
from benchmarks.timing import Program
from benchmarks.timm_import import timm
from deit_jax.models.registry import model_spec

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def settings() -> dict[str, Any]:
    """Set PyTorch up as fast as JAX's defaults allow, and return what was set."""
    torch.manual_seed(0)
    # JAX multiplies float32 in TF32 on GPUs that have it.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return {
        "device": str(DEVICE),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda or "none",
        "allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
    }


def check_model(name: str) -> None:
    """Raise ValueError if timm has no such model."""
    if name not in timm.list_models():
        raise ValueError(f"timm {timm.__version__} has no model {name!r}; leave --against out.")


def build(case: Case, micro_batches: int, name: str) -> Program:
    """Put model and data on the device; if so named, let torch.compile do its work."""
    compiled = name == "torch_compile"
    wrap: Callable = torch.compile if compiled else lambda function: function
    if case.mode == "inference":
        call: Callable[[], Any] = _inference(case, wrap)
    else:
        call = TrainStep(case, micro_batches, wrap)
    first = _seconds(call)
    compile_seconds = max(0.0, first - _seconds(call)) if compiled else 0.0
    return Program(name, micro_batches, call, wait, DEVICE.type == "cpu", compile_seconds)


def wait() -> None:
    """Return when the device has done everything it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def release() -> None:
    """Forget compiled code and unused memory, so that cases do not influence one another."""
    torch.compiler.reset()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def product_flops(dtype: str) -> float:
    """Return PyTorch's operations per second in the product that `hardware` times with JAX."""
    # Random: GPUs draw less power, and run faster, on constant numbers.
    matrix = torch.randn(product_side(), product_side(), dtype=getattr(torch, dtype), device=DEVICE)

    def product() -> None:
        torch.mm(matrix, matrix)
        wait()

    return fastest_product(product)


def soft_target_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return torch.sum(-targets * F.log_softmax(logits.float(), dim=-1), dim=-1).mean()


def smoothed_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    targets = torch.full((len(labels), num_classes), smoothing / num_classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1.0 - smoothing + smoothing / num_classes)


def student_loss(output: Any, targets: Tensor, teacher: Tensor | None, weight: float) -> Tensor:
    """Return the reference's loss with hard distillation, or that of all heads on the labels."""
    heads = output if isinstance(output, tuple) else (output, output)
    label = soft_target_cross_entropy(heads[0], targets)
    if teacher is not None:
        second = F.cross_entropy(heads[1].float(), teacher.argmax(dim=1))
        return (1.0 - weight) * label + weight * second
    if not isinstance(output, tuple):
        return label
    return (label + soft_target_cross_entropy(heads[1], targets)) / 2


class TrainStep:
    """One optimiser step on a batch that is already on the device."""

    def __init__(self, case: Case, micro_batches: int, wrap: Callable) -> None:
        self.config = config = train_config(case, micro_batches)
        self.autocast = _autocast(case.dtype)
        classes, size = config.model.num_classes, config.model.image_size
        self.student = _model(
            case.model, num_classes=classes, drop_path_rate=config.model.drop_path_rate
        ).train()
        if model_spec(case.model).distilled:
            self.student.set_distilled_training(True)
        self.teacher = None
        if case.mode == "distill":
            self.teacher = _model(case.teacher, num_classes=classes).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.student, config.optimizer)
        buffers = [buffer for buffer in self.student.buffers() if buffer.is_floating_point()]
        self.averaged = [*(p.data for p in self.student.parameters()), *buffers]
        self.average = [value.clone() for value in self.averaged]
        self.mean = _channels(config.augment.mean) * 255.0
        self.scale = 1.0 / (_channels(config.augment.std) * 255.0)
        images = torch.randint(0, 256, (case.batch_size, 3, *size), dtype=torch.uint8)
        self.images = images.to(DEVICE, memory_format=_memory_format(case.model))
        self.labels = torch.randint(0, classes, (case.batch_size,), device=DEVICE)
        self.prepare, self.loss = wrap(self._prepare), wrap(self._loss)

    def __call__(self) -> Tensor:
        """Take the step and return the loss, without waiting for it."""
        count = self.config.training.micro_batches
        with torch.no_grad(), self.autocast:
            images, targets, teacher = self.prepare(self.images, self.labels)
        teachers = [None] * count if teacher is None else teacher.chunk(count)
        total = torch.zeros((), device=DEVICE)
        for part in zip(images.chunk(count), targets.chunk(count), teachers, strict=True):
            with self.autocast:
                loss = self.loss(*part) / count
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.averaged, 1.0 - self.config.ema.decay)
        return total

    def _prepare(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        normalised = (images.float() - self.mean) * self.scale
        smoothing = self.config.training.label_smoothing
        targets = smoothed_targets(labels, self.config.model.num_classes, smoothing)
        if self.teacher is None:
            return normalised, targets, None
        theirs = normalised.contiguous(memory_format=torch.channels_last)
        return normalised, targets, self.teacher(theirs)

    def _loss(self, images: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
        weight = self.config.distillation.weight
        return student_loss(self.student(images), targets, teacher, weight)


def _inference(case: Case, wrap: Callable) -> Callable[[], Tensor]:
    model = _model(case.model).eval()
    size = train_config(case, 1).model.image_size
    images = torch.randn(case.batch_size, 3, *size)
    images = images.to(DEVICE, memory_format=_memory_format(case.model))
    forward, autocast = wrap(model), _autocast(case.dtype)

    def call() -> Tensor:
        with torch.inference_mode(), autocast:
            return forward(images)

    return call


def _model(name: str, **options: Any) -> Any:
    model = timm.create_model(name, pretrained=False, **options)
    return model.to(DEVICE, memory_format=_memory_format(name))


def _memory_format(name: str) -> torch.memory_format:
    return torch.channels_last if model_spec(name).convnet else torch.contiguous_format


def _autocast(dtype: str) -> contextlib.AbstractContextManager:
    if dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def make_optimizer(model: nn.Module, config: Any) -> torch.optim.Optimizer:
    """AdamW with one kernel for all parameters; vectors and embeddings are not decayed."""
    spared = {"pos_embed", "cls_token"}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[parameter.ndim > 1 and name not in spared].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "weight_decay": config.weight_decay if decayed else 0.0}
            for decayed, parameters in groups.items()
        ],
        lr=config.learning_rate,
        betas=(config.b1, config.b2),
        eps=config.eps,
        fused=True,
    )


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=DEVICE).view(1, 3, 1, 1)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start
