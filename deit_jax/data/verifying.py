"""Reading a prepared data set again, all of it, to name what has been damaged."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deit_jax.data.decode import decode
from deit_jax.data.prepared import open_shard, read_manifest, unpack


def verify(directory: Path, progress: Callable[[int], None] = lambda images: None) -> list[str]:
    """Reads everything again: hashes, counts, every record and every image.

    Returns:
        One sentence for each thing that is wrong, with the name of the file or the image.
    """
    manifest = read_manifest(directory)
    wrong: list[str] = []
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            wrong += _verify_shard(directory / shard["file"], shard, len(manifest["classes"]))
            progress(shard["images"])
    return wrong


def _verify_shard(path: Path, shard: dict[str, Any], num_classes: int) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} is missing."
        return
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
            yield f"{path} has changed since it was written (SHA-256)."
    try:
        reader = open_shard(path)
        count = reader.num_records()
    except RuntimeError as error:
        yield f"{path} cannot be opened: {' '.join(str(error).split())}."
        return
    if count != shard["images"]:
        yield f"{path} holds {count} records instead of {shard['images']}."
    for position in range(count):
        name = f"{path}, record {position}"
        try:
            record = unpack(reader.read([position])[0])
            name = f"{name} ({record.name})"
            assert isinstance(record.image, bytes)
            decode(record.image)
            if not 0 <= record.label < num_classes:
                yield f"{name} has the impossible label {record.label}."
        except (RuntimeError, ValueError, IndexError) as error:
            yield f"{name}: {' '.join(str(error).split())}."
