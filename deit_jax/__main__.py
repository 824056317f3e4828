"""`python -m deit_jax COMMAND`, and the program `deit-jax`."""

import sys
from typing import NoReturn

from deit_jax.kept_memory import keep_freed_memory


def start() -> NoReturn:
    """Run the command of this process's command line and end it."""
    words = sys.argv[1:]
    if words[:1] == ["train"]:
        keep_freed_memory()
        # First of all: a signal may come while libraries are loaded.
        from deit_jax.runs.interruption import Interruption

        interruption = Interruption.install()
        from deit_jax.cli import train

        train.start_training(words[1:], interruption)
    from deit_jax.cli.main import main

    sys.exit(main(words))


if __name__ == "__main__":
    start()
