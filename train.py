"""Train a model: `python train.py --config configs/FAMILY.py:WHAT --workdir DIR [--config.a.b=x]`.

The same as `python -m deit_jax train`, which an installed package has too.
"""

import sys

# First of all: a signal may come while libraries are loaded.
from deit_jax.kept_memory import keep_freed_memory
from deit_jax.runs.interruption import Interruption

# Reader processes import this file too.
if __name__ == "__main__":
    keep_freed_memory()
    _INTERRUPTION = Interruption.install()

    from deit_jax.cli.train import start_training

    start_training(sys.argv[1:], _INTERRUPTION)
