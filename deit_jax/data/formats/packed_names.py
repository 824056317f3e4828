"""Many names in little memory."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from deit_jax.data.identity import combine


class PackedNames:
    """An immutable list of texts, kept as one block of bytes (35 MB for ImageNet's paths).

    Args:
        texts: file names or paths; bytes that are no UTF-8 survive as `os.fsencode` keeps them.
    """

    def __init__(self, texts: Iterable[str]):
        encoded = [os.fsencode(text) for text in texts]
        self._block = b"".join(encoded)
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def digest(self) -> str:
        """SHA-256 over all texts in their order."""
        return combine([self._block, self._ends.astype("<i8").tobytes()])

    def __getitem__(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._block[start : self._ends[index]])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))
