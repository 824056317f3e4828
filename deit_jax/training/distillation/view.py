"""How the teacher sees the student's images: own normalisation, own size, own classes."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from deit_jax.models.functional import HeadLogits, ModelFunction
from deit_jax.models.fusion import fuse
from deit_jax.trees import Tree

Colour = tuple[float, ...]


@dataclass(frozen=True)
class TeacherView:
    """A frozen model that is shown the student's images, and answers in the student's classes.

    Called as the `ModelFunction` it wraps. The images stay the augmented, erased and mixed ones
    of the student (paper, section 4); only their numbers and their grid are converted.

    Attributes:
        function: of the teacher.
        student: mean and standard deviation that the images were normalised with.
        teacher: mean and standard deviation that the teacher was trained with.
        image_size: (height, width) that the teacher is given.
        classes: the teacher's class for each of the student's; empty if they are the same.
    """

    function: ModelFunction
    student: tuple[Colour, Colour]
    teacher: tuple[Colour, Colour]
    image_size: tuple[int, int]
    classes: tuple[int, ...] = ()

    def head_logits(
        self,
        params: Tree,
        batch_stats: Tree,
        images: Float[Array, "batch height width 3"],
        **options: Any,
    ) -> tuple[HeadLogits, Tree]:
        """Return the teacher's (fused) logits for the student's classes, as a single head's."""
        heads, batch_stats = self.function.head_logits(
            params, batch_stats, self.convert(images), **options
        )
        logits = fuse(*heads)
        if self.classes:
            logits = logits[:, np.asarray(self.classes)]
        return (logits, None), batch_stats

    def convert(
        self, images: Float[Array, "batch height width 3"]
    ) -> Float[Array, "batch teacher_height teacher_width 3"]:
        """Renormalise the same pixels, and resize them (bilinear, antialiased) if need be."""
        if self.student != self.teacher:
            (mean, std), (own_mean, own_std) = (
                np.asarray(pair, np.float64) for pair in (self.student, self.teacher)
            )
            # (x std + mean - own_mean) / own_std, the constants in double precision.
            images = images * np.float32(std / own_std) + np.float32((mean - own_mean) / own_std)
        if images.shape[1:3] != self.image_size:
            shape = (images.shape[0], *self.image_size, images.shape[3])
            images = jax.image.resize(images, shape, "linear", antialias=True)
        return jnp.asarray(images)
