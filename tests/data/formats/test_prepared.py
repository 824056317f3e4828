"""Open files of a prepared data set: few, whatever is read in what order by how many threads."""

import os
import pickle
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deit_jax.cli.main import main
from deit_jax.data.formats import prepared
from deit_jax.data.formats.prepared import most_open
from deit_jax.data.open import open_source

SHARDS, THREADS, MOST = 11, 4, 3


@pytest.fixture(scope="module")
def shards(image_folder, tmp_path_factory):
    """The eleven images of the folder, one in a file."""
    output = tmp_path_factory.mktemp("prepared") / "out"
    command = ["prepare", str(image_folder), str(output), "--splits=train", "--shard-images=1"]
    assert main([*command, "--workers=1"]) == 0
    assert len(list(output.glob("*.array_record"))) == SHARDS
    return output


def open_files(directory):
    """What the operating system says of this process."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:
            # Closed by another thread since they were listed.
            continue
    return [path for path in found if path.startswith(str(directory))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
@pytest.mark.parametrize("threads", [1, THREADS])
def test_few_files_are_open_at_a_time(shards, image_folder, monkeypatch, threads):
    monkeypatch.setattr(prepared, "most_open", lambda: MOST)
    folder = open_source("folder", "train", str(image_folder))
    expected = [folder[index].image for index in range(SHARDS)]
    source = pickle.loads(pickle.dumps(open_source("prepared", "train", str(shards))))
    order = np.random.default_rng(0).integers(0, SHARDS, 400).tolist()

    def read(index):
        image = source[index].image
        return image == expected[index], len(open_files(shards))

    with ThreadPoolExecutor(threads) as pool:
        same, counts = zip(*pool.map(read, order), strict=True)
    assert all(same)
    # Threads hold on to what they read from, or have just opened.
    assert MOST <= max(counts) <= MOST + threads
    assert len(open_files(shards)) == MOST
    source = None
    assert not open_files(shards)


@pytest.mark.parametrize(
    ("limit", "most"),
    [(256, 85), (1024, 341), (1 << 20, 1024), (2, 1), (resource.RLIM_INFINITY, 1024)],
)
def test_how_many_files_are_kept_open(monkeypatch, limit, most):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    assert most_open() == most


@pytest.mark.parametrize("content", ["[]", "null", '{"format": "another"}'])
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"manifest\.json is of format .*, not 'deit_jax prepared 1'"
    ):
        open_source("prepared", "train", str(tmp_path))
