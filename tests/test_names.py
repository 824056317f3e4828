"""One public name means one thing in the whole package."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "deit_jax"

SHARED = {
    "add_arguments": "every command has one",
    "run": "every command has one",
    "MODELS": "the table of each family of models, which the registry collects",
    "LAYOUTS": "the table of names of each family of convnets, which weights.convnets collects",
}
"""Names that several modules define, with the reason."""


def public_names(path: Path) -> set[str]:
    """Names that a module defines at its top level, imports left out."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {x.id for y in targets for x in ast.walk(y) if isinstance(x, ast.Name)}
    return {name for name in names if not name.startswith("_")}


def test_one_public_name_means_one_thing():
    modules = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in public_names(path):
            modules[name].append(str(path.relative_to(PACKAGE)))
    several = {name: places for name, places in modules.items() if len(places) > 1}
    assert {name: places for name, places in several.items() if name not in SHARED} == {}
    assert several.keys() == SHARED.keys()
