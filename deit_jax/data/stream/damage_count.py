"""Records that cannot be read: counted, named in the log, and too many of them end the run."""

import logging
from collections.abc import Iterable
from typing import NamedTuple

_LOG = logging.getLogger("deit_jax")
_LISTED = 50


class Damage(NamedTuple):
    """A record that could not be read or decoded."""

    number: int
    name: str
    reason: str


def allowed_damage(limit: float, images: int) -> int:
    """Return how many records may be damaged.

    Args:
        limit: below 1 a share of the images, from 1 on a count; 0 allows none.
        images: in the data set.
    """
    return int(limit * images) if limit < 1 else int(limit)


class DamageCount:
    """The damaged records of one stream, each counted once however often it is drawn.

    Args:
        source_name: what the error calls the data set.
        images: in the data set.
        limit: see `allowed_damage`.
        remedy: what is done about a damaged record, for the log.
        known: numbers of records that an earlier part of the run found damaged: they count, but
            are not logged again.
    """

    def __init__(
        self,
        source_name: str,
        images: int,
        limit: float,
        remedy: str,
        known: Iterable[int] = (),
    ):
        self._source_name = source_name
        self._allowed = allowed_damage(limit, images)
        self._images = images
        self._remedy = remedy
        self._known = frozenset(known)
        self._found: dict[int, Damage] = {}

    @property
    def found(self) -> tuple[Damage, ...]:
        """Those that were not known before, in the order of the data set."""
        return tuple(self._found[index] for index in sorted(self._found))

    @property
    def numbers(self) -> tuple[int, ...]:
        """Numbers of all, those known before included: what to keep for the next part of a run."""
        return tuple(sorted(self._known | self._found.keys()))

    def add(self, damages: Iterable[Damage]) -> None:
        """Note records that a batch met.

        Raises:
            ValueError: with their names, if there are now more than allowed.
        """
        for damage in damages:
            if damage.number in self._found or damage.number in self._known:
                continue
            self._found[damage.number] = damage
            _LOG.warning(
                "Damaged record %d (at most %d allowed) %s: %s; %s.",
                self._count,
                self._allowed,
                damage.name,
                damage.reason,
                self._remedy if self._count <= self._allowed else "that is one too many",
            )
        if self._count > self._allowed:
            raise ValueError(self._too_many())

    @property
    def _count(self) -> int:
        return len(self._known) + len(self._found)

    def _too_many(self) -> str:
        found = list(self._found.values())
        listed = "; ".join(f"{damage.name}: {damage.reason}" for damage in found[:_LISTED])
        more = self._count - min(len(found), _LISTED)
        return (
            f"{self._source_name} has at least {self._count} damaged records among "
            f"{self._images} and {self._allowed} are allowed (data.max_damaged): {listed}"
            + (f"; and {more} more, named in the log" if more > 0 else "")
            + ". Replace or remove them, or raise the limit."
        )
