"""Memory stays flat over the epochs, in this process and its readers."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

# In a process of its own, where nothing else allocates; 50 epochs of 48 images, 150 batches.
SCRIPT = """
import json, sys
from benchmarks import process_tree
from tests.inputs import train_input
from deit_jax.data.stream.loader import train_batches
from deit_jax.data.open import open_source

if __name__ == "__main__":
    directory, workers, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    options = train_input(image_size=(96, 96), batch_size=16, repeats=3, workers=workers)
    source = open_source("folder", "train", directory)
    held = []
    with train_batches(source, options, num_steps=3 * epochs) as batches:
        for step, batch in enumerate(batches, start=1):
            if step % 15 == 0:
                held.append(process_tree.memory().private)
    print(json.dumps(held))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(48):
        path = root / "train" / f"class{number % 3}" / f"{number}.jpeg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (200, 250, 3), np.uint8)).save(path)
    return root


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("workers", "epochs"),
    [
        (0, 50),
        pytest.param(1, 50, marks=pytest.mark.full),
        pytest.param(0, 1000, marks=pytest.mark.full),
    ],
)
def test_memory_is_flat(folder, tmp_path, workers, epochs):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    root = str(pathlib.Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(workers), str(epochs)],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        timeout=250,
        check=True,
    )
    held = json.loads(done.stdout)
    assert len(held) == epochs // 5
    # After epoch 5 against the end. Keeping one decoded image of 150 kB for each batch would be
    # 20 MB after 50 epochs, one batch of 442 kB 60 MB; allocators move by 2 or 3 MB.
    assert held[-1] - held[0] < 8 << 20, [size >> 20 for size in held]
