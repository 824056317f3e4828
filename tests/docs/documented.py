"""All commands that README, docs, config files, commands and benchmarks tell a reader to type."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
)
DOCSTRINGS = (
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "deit_jax" / "cli").glob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
)
# What begins a command; other lines of a block are output, Python or JSON.
_PROGRAM = re.compile(r"(python3?|deit-jax|make|pip|sbatch|git|\.venv|\.venv-test)\b(?! -c)")
# Other names of the same programs.
_SAME = (
    (re.compile(r"^deit-jax "), "python -m deit_jax "),
    (re.compile(r"^python -m deit_jax train "), "python train.py "),
)

# Neither of this project nor able to change with it, and why no test runs it.
FOREIGN = {
    "python serve.py photo.jpg": "of an exported directory; tests/export/test_formats.py runs it",
    "python3 -m venv .venv && . .venv/bin/activate": "makes an environment",
    "python main.py --model deit_small_patch16_224 --batch-size 256 --data-path IMAGENET "
    "--output_dir OUT": "a command of the reference, which the page translates",
}
# Where a text leaves out what the sentences around it have.
COMPLETED = {
    "python train.py ...": "python train.py --config configs/deit.py:small --workdir RUN",
}


def completed(command):
    """The command with what its text leaves out."""
    for text, whole in COMPLETED.items():
        if command.startswith(text):
            return whole + command.removeprefix(text)
    return command


def commands():
    """(where, command) of every command, continuation lines joined and comments dropped."""
    found = []
    for path in PAGES:
        where = path.relative_to(ROOT)
        found += [(str(where), command) for command in _in_blocks(path.read_text())]
    for path in DOCSTRINGS:
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        # Examples of commands are indented by two.
        text = text.replace("\n  ", "\n    ")
        where = path.relative_to(ROOT)
        found += [(str(where), command) for command in _in_blocks(text)]
    return found


def _in_blocks(text):
    """Commands in fenced and in indented blocks of Markdown."""
    fenced, pending = False, ""
    for line in text.splitlines():
        if line.strip().startswith("```"):
            fenced, pending = not fenced, ""
            continue
        if not fenced and not line.startswith("    "):
            pending = ""
            continue
        code = f"{pending} {line.strip()}".strip()
        # Within a Python docstring a backslash at the end has already joined the lines.
        pending = code[:-1].strip() if code.endswith("\\") else ""
        if not pending and _PROGRAM.match(code):
            code = re.sub(r"\s+", " ", re.sub(r"\s+#\s.*", "", code))
            for pattern, name in _SAME:
                code = pattern.sub(name, code)
            yield code
