"""What is kept of a teacher's answers, and how the loss gets them back.

Hard distillation (paper, eq. 3) needs the teacher's class: two bytes an image. The soft loss (eq.
2) needs its distribution: all logits, or the k largest, with what the others have together shared
out evenly among them, as in TinyViT (arXiv 2207.10666, section 3.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

from deit_jax.schema import Config
from deit_jax.training.label_losses import Logits

TeacherLabels = dict[str, Shaped[Array, "batch ..."]]
"""What is kept of the answers to a batch, by name."""


@dataclass(frozen=True)
class Kept:
    """What is kept of each answer.

    Attributes:
        kind: "hard" or "soft", as `distillation.kind`.
        classes: of the student, in which the teacher answers.
        top: of the soft loss's logits, how many of the largest; 0 for all, in float32.
        temperature: of the soft loss, at which the sum of the others is exact; 1 where it does not
            matter.
    """

    kind: str
    classes: int
    top: int = 0
    temperature: float = 1.0

    @classmethod
    def of(cls, config: Config) -> "Kept":
        """Return what the loss of a run needs of its teacher's answers."""
        kind, classes, top = (
            config.distillation.kind,
            config.model.num_classes,
            config.teacher.labels_top,
        )
        if kind == "soft" and 0 < top < classes:
            return cls(kind, classes, top, config.distillation.temperature)
        return cls(kind, classes)

    def shapes(self, batch: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return shape and type of each array that is kept of a batch."""
        if self.kind == "hard":
            return {"label": ((batch,), "uint16")}
        if not self.top:
            return {"logits": ((batch, self.classes), "float32")}
        largest = (batch, self.top)
        return {
            "below": (largest, "float16"),
            "class": (largest, "uint16"),
            "others": ((batch,), "float32"),
        }

    def encode(self, logits: Logits) -> TeacherLabels:
        """Return what is kept of the teacher's logits."""
        if self.kind == "hard":
            return {"label": jnp.argmax(logits, axis=-1).astype(jnp.uint16)}
        logits = logits.astype(jnp.float32)
        if not self.top:
            return {"logits": logits}
        values, classes = jax.lax.top_k(logits, self.top)
        best = values[:, :1]
        rows = jnp.arange(len(logits))[:, None]
        others = logits.at[rows, classes].set(-jnp.inf)
        return {
            # Relative to the largest, float16 is the finer the more a class weighs; bfloat16 has
            # eight times its error, and its range is not needed.
            "below": (values - best).astype(jnp.float16),
            "class": classes.astype(jnp.uint16),
            "others": jax.nn.logsumexp((others - best) / self.temperature, axis=-1),
        }

    def decode(self, labels: Mapping[str, Shaped[Array, "batch ..."]]) -> Logits:
        """Return logits that the loss takes for the teacher's: with its class, or distribution."""
        if self.kind == "hard":
            return jax.nn.one_hot(labels["label"], self.classes)
        if not self.top:
            return jnp.asarray(labels["logits"])
        share = labels["others"] - jnp.log(self.classes - self.top)
        logits = jnp.broadcast_to(self.temperature * share[:, None], (len(share), self.classes))
        rows = jnp.arange(len(share))[:, None]
        return logits.at[rows, labels["class"].astype(jnp.int32)].set(
            labels["below"].astype(jnp.float32)
        )
