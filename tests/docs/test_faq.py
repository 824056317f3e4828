"""Every message that the page quotes is one that the code prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| `(.+?)` \| .+ \|$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE)


@cache
def texts():
    """All text in the sources, joined as Python joins it, "…" in place of what is filled in."""
    found = []
    for path in (ROOT / "deit_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "…" for p in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                # What logging fills in.
                found.append(re.sub(r"%[sd]|%\.\d+f", "…", node.value))
    return found


def said(message):
    """Whether one text has the pieces of a message in their order."""
    pieces = r".*".join(re.escape(piece.strip()) for piece in message.split("…"))
    return any(re.search(pieces, text, re.DOTALL) for text in texts())


def test_messages_were_found():
    assert len(ROWS) > 15


@pytest.mark.parametrize("message", ROWS)
def test_a_quoted_message_is_one_of_ours(message):
    assert max(map(len, message.split("…"))) > 12
    assert said(message), message


def test_others_are_not_found():
    assert not said("This … is said by nobody")
