"""What weights said of themselves, for as long as the model lives that they were loaded into."""

from typing import Any
from weakref import WeakKeyDictionary

from deit_jax.weights.description.facts import Facts

# A module has no room for it: what it holds is part of compiled programs.
_FACTS: "WeakKeyDictionary[Any, Facts]" = WeakKeyDictionary()


def remember(model: Any, facts: Facts) -> None:
    """Keep the facts of the weights that a model has got last."""
    _FACTS[model] = facts


def remembered(model: Any, num_classes: int) -> Facts:
    """Return preprocessing and, if they are as many as its classes, names; else what is assumed."""
    facts = _FACTS.get(model, Facts())
    labels = facts.labels if len(facts.labels) == num_classes else ()
    return Facts(preprocessing=facts.preprocessing, labels=labels)
