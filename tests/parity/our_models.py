"""Models to compare, of fewer blocks or smaller than those that are registered."""

from functools import partial

from deit_jax.models import deit, vit
from deit_jax.models.functional import abstract
from deit_jax.parity.our_model import OurModel, noise_pixels, random_weights


def with_depth(name, depth):
    """A registered transformer with another number of blocks and random weights."""
    entry = deit.MODELS[name]
    build = partial(entry["build"], depth=depth, num_classes=1000, image_size=entry["image_size"])
    return _subject(name, build)


def small(distilled=True, depth=2):
    """A transformer that compiles within a second or two; no other project has its name."""
    sizes = dict(patch_size=4, width=32, depth=depth, num_heads=2, distilled=distilled)
    return _subject("small", partial(vit.VisionTransformer, 10, (16, 12), **sizes))


def _subject(name, build):
    function, shapes, statistics = abstract(lambda rngs: build(rngs=rngs))
    return OurModel(name, function, *random_weights(shapes, statistics, 0), weights="random")


def images_of(subject, count=2):
    return subject.normalise(noise_pixels(count, subject.module.image_size))
