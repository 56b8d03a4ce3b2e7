"""Imports only go down: the floors of docs/architecture.md, which the imports inside of functions keep too."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"
# a room may import those that stand before it
FLOORS = (
    {"errors", "hook_points", "devices", "multiple_tests", "config", "artifacts"},
    {"models", "text"},
    {"activations"},
    {"transport", "features", "topology", "geometry"},
    {"causal", "scenarios"},
    {"modulators"},
    {"report"},
    {"stage"},
)
# of the lowest floor, who may know whom
LOWEST = {
    "errors": set(),
    "hook_points": {"errors"},
    "devices": {"errors"},
    "multiple_tests": set(),
    "config": {"errors", "hook_points"},
    "artifacts": {"errors", "config", "hook_points"},
}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("src"):
            yield from (f"{node.module}.{name.name}" if node.module == "src" else node.module for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("src"))


def modules() -> dict[str, set[str]]:
    """The modules of src, and what each imports."""
    return {
        ".".join(("src", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): set(imports_of(path))
        for path in SRC.rglob("*.py")
    }


def room(module: str) -> str:
    return module.split(".")[1]


def test_every_room_imports_only_those_below_it():
    height = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    found = modules()
    assert {room(module) for module in found if module != "src"} == set(height)
    for module, imported in found.items():
        for other in imported:
            if room(other) == room(module):
                continue
            here, there = height[room(module)], height[room(other)]
            assert there < here or (here == 0 and room(other) in LOWEST[room(module)]), f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle():
    found = modules()
    known = {module: {other for other in imported if other in found} for module, imported in found.items()}
    # an __init__ gathers what its package offers: its modules reach each other directly
    packages = {".".join(("src", *path.parent.relative_to(SRC).parts)) for path in SRC.rglob("__init__.py")}
    leaves = {module: others - packages for module, others in known.items() if module not in packages}
    assert len(list(TopologicalSorter(leaves).static_order())) >= len(leaves)  # CycleError if there is one
