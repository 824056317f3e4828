"""Small runs of the train step: a transformer and a convnet on random 16 x 16 images."""

from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from configs.digits import get_config
from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.functional import abstract, initialise
from deit_jax.models.regnet import RegNet, regnet_architecture
from deit_jax.models.vit import VisionTransformer
from deit_jax.schema import Config
from deit_jax.schema.images import NORMALISED, UNMIXED
from deit_jax.training.freezing import trainable
from deit_jax.training.optimizer import make_optimizer
from deit_jax.training.state import create_state
from deit_jax.training.step import make_train_step

MIXING = replace(UNMIXED, mixup_alpha=0.8, cutmix_alpha=1.0, group=4)
AUGMENT = replace(NORMALISED, crop_padding=2, flip=0.5, erasing_probability=0.25)


def small_config(**changes):
    config = get_config("none")
    config.model.drop_path_rate = 0.2
    config.training.batch_size = 32
    config.optimizer.learning_rate = 1e-2
    config.schedule.warmup_epochs = 0.0
    for key, value in changes.items():
        group, _, name = key.partition("__")
        config[group][name] = value
    return config


def transformer(config, rngs, distilled=True):
    return VisionTransformer(
        VitArchitecture(4, 32, depth=2, num_heads=2, distilled=distilled),
        num_classes=10,
        image_size=(16, 16),
        drop_rate=config.model.drop_rate,
        drop_path_rate=config.model.drop_path_rate,
        rngs=rngs,
    )


one_headed = partial(transformer, distilled=False)


def convnet(config, rngs):
    shape = regnet_architecture((16, 32), (1, 1), 8, strides=(1, 2), stem=(8, 3, 1))
    return RegNet(shape, num_classes=10, image_size=(16, 16), rngs=rngs)


def make(config, model=transformer, teacher=None, mixing=MIXING, augment=AUGMENT, sharding=None):
    build = partial(model, config)
    config = replace(Config.of(config), augment=augment, mix=mixing)
    function, params, _ = abstract(build)
    optimizer = make_optimizer(config.optimizer, params, trainable(params, config))
    step = make_train_step(
        function,
        teacher,
        optimizer,
        config,
        steps_per_epoch=10.0,
        sharding=sharding,
    )
    start = function.merge(*initial_weights(model))
    state = create_state(lambda _: start, optimizer, jax.random.key(0), ema=True)
    return function, state, jax.jit(step)


@cache
def initial_weights(model):
    """Parameters and statistics, computed once: no rate of dropping changes them."""
    build = partial(model, small_config())
    return jax.jit(partial(initialise, build))(jax.random.key(0))


def batches(count, size=32):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            "image": rng.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8),
            "label": rng.integers(0, 10, size).astype(np.int32),
            "epoch": np.zeros(size, np.int32),
            "index": np.arange(size, dtype=np.int32),
            "copy": np.zeros(size, np.int32),
        }


def split_over(devices):
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )
    return NamedSharding(mesh, PartitionSpec("data"))
