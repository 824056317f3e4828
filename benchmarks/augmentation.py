"""What augmentation costs: on the device, with Pillow, and as timm does it; and its memory."""

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from PIL import Image

from benchmarks.arguments import check_outputs
from benchmarks.cases import DTYPES, Case
from benchmarks.hardware import describe
from benchmarks.pillow_augmentation import augment_on_host
from benchmarks.timing import Spread, speedup, spread
from deit_jax.augment.keys import image_keys, purpose
from deit_jax.augment.mixup_cutmix import mix
from deit_jax.augment.pipeline import augment_images
from deit_jax.augment.recipes import RECIPES, Recipe, recipe_named
from deit_jax.cli.arguments import Parser, between, parse, positive_count
from deit_jax.models.registry import model_spec

_EXAMPLE = """\
example:
  python -m benchmarks.augmentation --recipe deit --batch-size 256 \\
      --train-model deit_small_patch16_224 --markdown benchmarks/results/augmentation.md
"""
TIMM_POLICIES = {"deit": "rand-m9-mstd0.5-inc1", "deit-autoaugment": "original", "deit3": "3a"}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the process's exit code."""
    parser = _parser()
    args = parse(parser, argv)
    try:
        recipe = recipe_named(args.recipe)
        if args.train_model:
            size = model_spec(args.train_model).image_size
            if size != (args.size, args.size):
                raise ValueError(
                    f"{args.train_model} trains on {size[0]} pixels, --size is {args.size}: pass "
                    f"--size {size[0]}."
                )
        check_outputs([args.markdown])
        if args.recipe in TIMM_POLICIES:
            # timm is not needed for recipes that it does not have.
            importlib.import_module("benchmarks.timm_import")
    except (ValueError, ModuleNotFoundError) as error:
        parser.error(str(error))
    images = pictures(args.batch_size, args.size)
    lines = [
        f"# Cost of augmentation, recipe {args.recipe}",
        "",
        f"{describe()}; batch {args.batch_size}, {args.size} px.",
        "",
        *_speed(args, recipe, images),
        "",
        _memory(args, recipe),
    ]
    if args.train_model:
        lines += ["", _share(args, recipe)]
    page = "\n".join(lines) + "\n"
    print(page)
    if args.markdown:
        args.markdown.write_text(page, encoding="utf-8")
    return 0


def pictures(count: int, size: int) -> np.ndarray:
    """Smooth random images with some grain, uint8."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (12, 12, 3), np.uint8))
        fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
        made.append(np.clip(fine + generator.integers(-12, 13, fine.shape), 0, 255))
    return np.stack(made).astype(np.uint8)


def _speed(args: argparse.Namespace, recipe: Recipe, images: np.ndarray) -> list[str]:
    """Let the sides take turns, and tell their rates in a table."""
    on_cpu = jax.default_backend() == "cpu"
    batches = iter(range(10**9))
    compiled = _compile_augmentation(recipe, args.batch_size, args.size, mixed=False)
    placed = jax.device_put(images)

    def on_device() -> None:
        jax.block_until_ready(compiled(placed, _index(next(batches), args.batch_size)))

    few = images[: args.pillow_images]
    draws = jax.jit(lambda index: _keys(index, "augment"))

    def with_pillow() -> None:
        augment_on_host(few, draws(_index(next(batches), len(few))), recipe.augment)

    sides: dict[str, tuple[Callable[[], None], int, bool]] = {
        f"deit_jax, {jax.devices()[0].device_kind}": (on_device, len(images), on_cpu),
        "deit_jax, Pillow": (with_pillow, len(few), True),
    }
    if args.recipe in TIMM_POLICIES:
        sides["timm, Pillow"] = (_timm_side(args.recipe, few), len(few), True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for function, _, _ in sides.values():
        function()
    for _ in range(args.repeats):
        for name, (function, many, core) in sides.items():
            clock = time.process_time if core else time.perf_counter
            start = clock()
            function()
            seconds[name].append((clock() - start) / many)
    reference = seconds.get("timm, Pillow", seconds["deit_jax, Pillow"])
    rows = ["| side | images/s | times the last side |", "|---|---|---|"]
    for name, values in seconds.items():
        rate, ratio = spread([1 / value for value in values]), speedup(values, reference)
        rows.append(f"| {name} | {_span(rate)} | {_span(ratio)} |")
    note = "Rates on the processor are images per second of one core's time; crops are given."
    return [*rows, "", note]


def _timm_side(recipe: str, images: np.ndarray) -> Callable[[], None]:
    """Apply timm's transform of one image without the crop, over all images."""
    from benchmarks.timm_import import timm

    options = RECIPES[recipe].augment
    first, second, last = timm.data.transforms_factory.transforms_imagenet_train(
        images.shape[1],
        interpolation=options.interpolation,
        auto_augment=TIMM_POLICIES[recipe],
        color_jitter=options.color_jitter,
        re_prob=options.erasing_probability,
        re_mode=options.erasing_mode,
        separate=True,
    )
    steps = [*first.transforms[1:], *second.transforms, *last.transforms]

    def run() -> None:
        for pixels in images:
            image: Any = Image.fromarray(pixels)
            for step in steps:
                image = step(image)

    return run


def _memory(args: argparse.Namespace, recipe: Recipe) -> str:
    """Say what the compiler reserves for a large batch."""
    compiled = _compile_augmentation(recipe, args.memory_batch, args.size, mixed=True)
    plan = compiled.memory_analysis()
    batch = args.memory_batch * args.size**2 * 3
    total = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return (
        f"Memory with mixing, batch {args.memory_batch}: {batch / 2**20:.0f} MiB of uint8 images; "
        f"arguments, results (float32) and temporaries {total / 2**20:.0f} MiB, "
        f"{total / batch:.1f} times the uint8 batch, {total / batch / 4:.1f} times the float32 one."
    )


def _share(args: argparse.Namespace, recipe: Recipe) -> str:
    """Compare augmentation and mixing with a train step of the same batch."""
    from benchmarks import jax_side

    dtype = args.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    size = args.train_batch_size or args.batch_size
    step = jax_side.build(Case(args.train_model, "train", size, dtype))
    compiled = _compile_augmentation(recipe, size, args.size, mixed=True)
    placed = jax.device_put(pictures(size, args.size))
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {"augment": [], "step": []}
    step.run(2)
    for number in range(args.repeats + 1):
        start = clock()
        calls = [compiled(placed, _index(10 * number + call, size)) for call in range(3)]
        jax.block_until_ready(calls)
        middle = clock()
        step.run(3)
        if number:
            seconds["augment"].append((middle - start) / 3)
            seconds["step"].append((clock() - middle) / 3)
    shares = [100 * a / s for a, s in zip(seconds["augment"], seconds["step"], strict=True)]
    return (
        f"Augmentation with mixing takes {_span(spread(shares))} % of a train step of "
        f"{args.train_model}, batch {size}, {dtype} "
        f"({1e3 * spread(seconds['augment']).median:.3g} of "
        f"{1e3 * spread(seconds['step']).median:.4g} ms)."
    )


def _compile_augmentation(recipe: Recipe, batch: int, size: int, mixed: bool) -> Compiled:
    def program(images: jax.Array, index: jax.Array) -> Any:
        augmented = augment_images(images, _keys(index, "augment"), recipe.augment)
        if not mixed:
            return augmented
        targets = jax.nn.one_hot(index % 1000, 1000)
        return mix(augmented, targets, _keys(index, "mix"), recipe.mix)

    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    return jax.jit(program).lower(images, _index(0, batch)).compile()


def _keys(index: jax.Array, name: str) -> jax.Array:
    return purpose(image_keys(0, 0 * index, index, 0 * index), name)


def _index(number: int, count: int) -> jax.Array:
    return number * count + jnp.arange(count, dtype=jnp.int32)


def _span(values: Spread) -> str:
    return f"{values.median:.3g} ({values.low:.3g} to {values.high:.3g})"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.augmentation",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--recipe", default="deit", help=f"of {', '.join(RECIPES)} (default deit)")
    add("--batch-size", type=positive_count, default=256, help="images of one call (default 256)")
    add("--size", type=between(16), default=224, help="side in pixels (default 224)")
    add("--repeats", type=positive_count, default=7, help="rounds of turns (default 7)")
    add(
        "--pillow-images",
        type=positive_count,
        default=64,
        help="images per turn of Pillow (default 64)",
    )
    add(
        "--memory-batch",
        type=positive_count,
        default=1024,
        help="batch for the memory (default 1024)",
    )
    add("--train-model", default="", help="also compare with a train step of this model")
    add("--train-batch-size", type=between(0), default=0, help="its batch (default: --batch-size)")
    add("--dtype", choices=DTYPES, default="", help="of its products (default: by device)")
    add("--markdown", type=Path, metavar="FILE", help="write results as a Markdown page")
    return parser


if __name__ == "__main__":
    sys.exit(main())
