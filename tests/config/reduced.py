"""Every experiment at a size at which two steps of it take seconds."""

import json

import jax
import numpy as np
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from deit_jax.config.keys import leaves_by_key
from deit_jax.config.validate import validate
from deit_jax.data.stream.loader import train_batches
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_builder
from deit_jax.sharding import put_batch, replicated
from deit_jax.training.initial import load_initial
from deit_jax.training.setup import set_up
from deit_jax.weights.transformer_layout import to_foreign

BATCH = 8


def small_model(name):
    """The smallest registered model of the same family."""
    if name.startswith(("regnety", "tf_efficientnet")):
        return "regnety_micro"
    if name.startswith("deit3"):
        return "deit3_micro_patch4_16"
    return f"deit_micro{'_distilled' if 'distilled' in name else ''}_patch4_16"


def small_size(size):
    """16 pixels for up to 224, 24 for more; (0, 0) is no size."""
    return (0, 0) if tuple(size) == (0, 0) else ((16, 16) if max(size) <= 224 else (24, 24))


def save_weights(folder, name, size=(16, 16)):
    """Write random weights of a model, once; return the file. Drawn without compiling anything."""
    path = folder / f"{name}.safetensors"
    if not path.exists():
        build = model_builder(name, num_classes=10, image_size=size)
        rng = np.random.default_rng(0)

        def draw(leaf):
            # Variances and scales have to be positive, and both are vectors.
            return (0.02 * rng.normal(size=leaf.shape) + (leaf.ndim == 1)).astype(np.float32)

        params, batch_stats = (jax.tree.map(draw, tree) for tree in abstract(build)[1:])
        save_file(to_foreign(params, batch_stats, "timm", name), path)
    return str(path)


def reduce(config: ConfigDict, folder) -> ConfigDict:
    """Shrink model, images, data and length; all that says what is done stays."""
    config = ConfigDict(json.loads(json.dumps(config.to_dict())))
    config.data.update(source="digits", directory="", train_split="train", eval_split="validation")
    config.data.update(classes=0, train_images=0, fraction=1.0, threads=1, workers=0)
    config.model.update(name=small_model(config.model.name), num_classes=10, dtype="float32")
    config.model.image_size = small_size(config.model.image_size)
    config.training.batch_size = BATCH
    config.mix.group = 4 if config.mix.group else 0
    config.evaluation.batch_size = BATCH
    config.schedule.update(epochs=2 * BATCH / 597, warmup_epochs=BATCH / 597, least_steps=0)
    if config.model.weights:
        # What is fine-tuned was trained at the smaller size.
        config.model.weights = save_weights(folder, config.model.name)
    if config.distillation.kind != "none":
        config.teacher.update(name=small_model(config.teacher.name), dtype="float32")
        config.teacher.image_size = small_size(config.teacher.image_size)
        config.teacher.weights = save_weights(folder, config.teacher.name)
        # Of another stream than what the reduced one of another command left.
        config.teacher.labels = ""
    # Neither is read by a step.
    config.update_from_flattened_dict({"log.every_steps": 50, "evaluation.every_epochs": 1.0})
    # Programs of their own, compiled for each.
    config.log.images = 0
    assert validate(config, device_count=1) == []
    return config


def describe(config):
    """What decides about the program of a step, as text."""
    return json.dumps({k: v for k, v in leaves_by_key(config).items()}, sort_keys=True, default=str)


def take_two_steps(config):
    """Prepare the run as train.py does and take its steps; return the state before and after."""
    setup = set_up(config)
    weights = load_initial(config, setup.abstract_state)
    state = setup.initial_state(weights)
    before = jax.device_get(state)
    teacher = setup.teacher.params if setup.teacher else {}
    teacher = jax.device_put(teacher, replicated(setup.mesh))
    assert setup.total_steps == 2
    batches = train_batches(
        setup.train_source,
        setup.train_input,
        start_step=0,
        num_steps=2,
        process_index=0,
        process_count=1,
    )
    for batch in batches:
        state = setup.train_step(state, teacher, put_batch(batch, setup.mesh))
    after = jax.device_get(state)
    assert int(after["step"]) == 2 and int(after["skipped"]) == 0
    assert np.isfinite(after["sums"]["loss"])
    return before, after
