"""From a record to pixels, or to another record where it is damaged."""

from collections.abc import Callable
from typing import Final

from deit_jax.data.draws import substitutes
from deit_jax.data.images.decode import decode_and_tell
from deit_jax.data.images.oddities import Oddity
from deit_jax.data.images.resize import Pixels
from deit_jax.data.open_file_limit import check_open_files
from deit_jax.data.source import Record, Source
from deit_jax.data.stream.damage_count import Damage

# What a reader notices: records that it could not read, and such as it could hardly read.
Found = list[Damage | Oddity]
# With one record in three damaged, so many in a row are once in 10^15.
_SUBSTITUTES: Final = 32


class DamagedRecordError(ValueError):
    """A record that cannot be read or decoded."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Cannot read record {self.name}: {self.reason}. "
            "Replace it or remove it from the data set."
        )


def read_image(
    source: Source,
    index: int,
    found: Found | None = None,
    view: Callable[[Pixels], Pixels] = lambda pixels: pixels,
) -> tuple[Pixels, int]:
    """Read and decode one record.

    Args:
        source: to read from.
        index: of the record.
        found: is added to, if the record is odd.
        view: what is made of the pixels.

    Returns:
        (the view, label).

    Raises:
        DamagedRecordError: if memory does not suffice for the view, or as `read_record`.
        ValueError: as `read_record`.
        OSError: if too many files are open.
    """
    record, pixels, loss = read_record(source, index)
    if loss and found is not None:
        found.append(Oddity(index, record.name, loss))
    try:
        return view(pixels), record.label
    except MemoryError as error:
        raise DamagedRecordError(record.name, "there is not enough memory to resize it") from error


def read_record(source: Source, index: int) -> tuple[Record, Pixels, str]:
    """Read and decode one record.

    Returns:
        (the record, its pixels, what became of values that 8 bits do not hold).

    Raises:
        DamagedRecordError: if it cannot be read or decoded.
        ValueError: naming the record, if its label is impossible.
        OSError: if too many files are open.
    """
    name, loss = f"{source.name}[{index}]", ""
    # Exceptions of other libraries need not survive pickling, and the process that waits for this
    # one's batch would never hear of them: hence only builtin ones and ours leave from here.
    try:
        record = source[index]
        name, pixels = record.name, record.image
        if isinstance(pixels, bytes):
            pixels, loss = decode_and_tell(pixels)
    except Exception as error:
        check_open_files(error)
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror and error.filename:
            name, reason = str(error.filename), error.strerror
        raise DamagedRecordError(name, " ".join(reason.split())) from error
    if not 0 <= record.label < source.num_classes:
        raise ValueError(
            f"Record {name} has label {record.label}, but {source.name} has "
            f"{source.num_classes} classes, counted from 0."
        )
    return record, pixels, loss


def read_or_replace(
    source: Source, index: int, seed: int, found: Found, view: Callable[[Pixels], Pixels]
) -> int:
    """Read a record or, if it is damaged, the first sound one of its `substitutes`.

    Args:
        source: to read from.
        index: of the record.
        seed: of the stream.
        found: is added to.
        view: what is made of the pixels.

    Returns:
        The label of the record that was read.

    Raises:
        ValueError: if the substitutes are damaged as well, or as `read_image`.
    """
    damages = []
    for number in [index, *substitutes(seed, index, len(source), _SUBSTITUTES)]:
        try:
            return read_image(source, number, found, view)[1]
        except DamagedRecordError as error:
            damages.append(Damage(number, error.name, error.reason))
            found.append(damages[-1])
    names = ", ".join(damage.name for damage in damages[-_SUBSTITUTES:])
    raise ValueError(
        f"{source.name} is damaged all over: none of {names} can be read ({damages[-1].reason})."
    )
