"""The command line where reading one image never ends, so that no preparation can finish.

python -m tests.cli.stuck prepare ...
"""

import sys
import time

from deit_jax.data.formats.folder import FolderSource


class StuckSource(FolderSource):
    """A folder that waits for ever for the image called 23.jpeg."""

    def __getitem__(self, index):
        while self.path(index).endswith("23.jpeg"):
            time.sleep(1)
        return super().__getitem__(index)


if __name__ == "__main__":
    from deit_jax.cli.main import main
    from deit_jax.data.formats import folder

    folder.FolderSource = StuckSource
    sys.exit(main(sys.argv[1:]))
