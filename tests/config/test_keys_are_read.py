"""No key of the configuration is there for nothing."""

import re
from pathlib import Path

import deit_jax
from deit_jax.schema import RULES

# Groups that are handed on whole, as keyword arguments of a function with these names.
WHOLE = ("ema",)


def test_every_key_is_read_outside_of_the_schema():
    package = Path(deit_jax.__file__).parent
    files = [path for path in package.rglob("*.py") if "schema" not in path.parts]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    # As an attribute or an item: `config.mix.group`, `options.group`, config["group"].
    read = set(re.findall(r"\.(\w+)|\[\"(\w+)\"\]", text))
    names = {name for pair in read for name in pair}
    unread = {
        key for key in RULES if key.rpartition(".")[2] not in names and not key.startswith(WHOLE)
    }
    assert not unread
