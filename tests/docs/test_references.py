"""Modules, functions and files that docstrings, comments and pages speak of are there."""

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

from deit_jax.schema import RULES

ROOT = Path(__file__).parents[2]
FOLDERS = ("deit_jax", "configs", "benchmarks", "tests", "docs")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"])
SOURCES = sorted([ROOT / "train.py", *(path for f in FOLDERS for path in (ROOT / f).rglob("*.py"))])
QUOTED = re.compile(r"`([A-Za-z_][\w./]*\w)(?:\(\))?`")
FILES = (
    *(
        ".py",
        ".md",
        ".json",
        ".jsonl",
        ".toml",
        ".txt",
        ".pth",
        ".safetensors",
        ".corrupt",
        ".abandoned",
    ),
    *(".c", ".html", ".ini", ".db", ".mat", ".csv", ".gz", ".JPEG", ".png", ".tar", ".zip"),
    *(".onnx", ".stablehlo"),
)
ELSEWHERE = {
    *("torch", "timm", "jax", "optax", "flax", "nnx", "PIL", "transformers", "torchvision", "tf"),
    *("ml_collections", "argparse", "cudnn", "ImageOps", "ImageEnhance", "AutoImageProcessor"),
    # timm's classes, tensors of others, modules of Python, a loop's variable.
    *("Mixup", "args", "ls1", "options", "_blocks", "concurrent", "pickle"),
}
"""First parts of names that are another project's."""


@cache
def modules() -> dict[str, set[str]]:
    """Dotted name of every module and package, and the names in it ("Class.method" too)."""
    found = {}
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        tree = ast.parse(path.read_text())
        names = set()
        for node in tree.body:
            names |= _names(node)
            if isinstance(node, ast.ClassDef):
                attributes = (name for child in ast.walk(node) for name in _names(child))
                names |= {f"{node.name}.{name}" for name in attributes}
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = names
    return found


def _names(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = {x.id for y in targets for x in ast.walk(y) if isinstance(x, ast.Name)}
        return names | {
            x.attr for y in targets for x in ast.walk(y) if isinstance(x, ast.Attribute)
        }
    return set()


@cache
def ours() -> set[str]:
    """Every end of a dotted name by which something of ours can be called, and all keys."""
    found = {f"{prefix}{key}" for key in RULES for prefix in ("", "config.")}
    found |= {f"deit_jax.{name}" for name in modules()["deit_jax.api"]}
    found |= {f"config.{key.partition('.')[0]}" for key in RULES}
    for module, names in modules().items():
        parts = module.split(".")
        ends = [".".join(parts[start:]) for start in range(len(parts))]
        found |= {*ends, *(f"{end}.{name}" for end in ends for name in names), *names}
    return found


def problem(text: str, known: set[str]) -> str:
    """What is wrong with a quoted name; "" if nothing, or if it is no reference of ours."""
    if "/" in text:
        here = text.split("/")[0] in FOLDERS
        return text if here and not (ROOT / text).exists() else ""
    first, dot, _ = text.partition(".")
    if not dot or text.endswith(FILES):
        return ""
    return "" if first in known or text in ours() else text


def _wrong(path: Path) -> list[str]:
    """What a source file quotes in docstrings and comments and is not there."""
    source = path.read_text()
    # Most files are done with here: to take one to pieces takes longer.
    if not any(problem(text, ELSEWHERE) for text in QUOTED.findall(source)):
        return []
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    known = {token.string for token in tokens if token.type == tokenize.NAME} | ELSEWHERE
    prose = "\n".join(t.string for t in tokens if t.type in (tokenize.COMMENT, tokenize.STRING))
    return [f"{path.relative_to(ROOT)}: {x}" for x in QUOTED.findall(prose) if problem(x, known)]


def test_names_in_sources_are_there():
    assert [x for path in SOURCES if path != Path(__file__) for x in _wrong(path)] == []


def test_names_in_pages_are_there():
    wrong = []
    for path in PAGES:
        texts = QUOTED.findall(path.read_text())
        wrong += [f"{path.relative_to(ROOT)}: {x}" for x in texts if problem(x, ELSEWHERE)]
    assert wrong == []
