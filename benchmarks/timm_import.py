"""timm and torchvision, also where the one that is installed was built for another torch."""

from typing import Any

from deit_jax.extras import require

timm: Any = require("timm")
torchvision: Any = require("torchvision")
