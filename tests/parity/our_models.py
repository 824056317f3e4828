"""Models to compare, of fewer blocks or smaller than those that are registered."""

from functools import partial

from deit_jax.models.architecture import VitArchitecture
from deit_jax.models.functional import abstract
from deit_jax.models.registry import model_spec
from deit_jax.models.vit import VisionTransformer
from deit_jax.parity.our_model import OurModel, noise_pixels, random_weights


def with_depth(name, depth):
    """A registered transformer with another number of blocks and random weights."""
    spec = model_spec(name).resized(depth=depth)
    build = partial(spec.build, num_classes=1000, image_size=spec.image_size)
    return _subject(name, build)


def small(distilled=True, depth=2):
    """A transformer that compiles within a second or two; no other project has its name."""
    sizes = VitArchitecture(4, 32, depth, 2, distilled)
    build = partial(VisionTransformer, sizes, num_classes=10, image_size=(16, 12))
    return _subject("small", build)


def _subject(name, build):
    function, shapes, statistics = abstract(lambda rngs: build(rngs=rngs))
    return OurModel(name, function, *random_weights(shapes, statistics, 0), weights="random")


def images_of(subject, count=2):
    return subject.normalise(noise_pixels(count, subject.module.image_size))
