"""Imports run downwards: no module imports one above it, none imports itself over others, data and models are apart."""

import ast
from pathlib import Path

import vidclf

ROOT = Path(vidclf.__file__).parent
# From the bottom to the top; what stands in one row does not import each other.
LEVELS = (
    {"errors"},
    {"system"},
    {"contracts"},
    {"data", "models"},
    {"features"},
    {"datamodule"},
    {"run"},
    {"build"},
    {"pages"},
    {"evaluation"},
    {"audit", "comparison", "prediction"},
    {"api"},
)
TOP = len(LEVELS)  # the command line and its verbs
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imported_modules(path: Path) -> set[str]:
    """Return the modules of vidclf that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    modules = {name.removeprefix("vidclf.") for name in found if name.startswith("vidclf.")}
    return {name for name in modules if (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()}


GRAPH = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): imported_modules(path)
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py" or path.stat().st_size
}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_imports_run_downwards():
    upwards = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
        for other in others
        if room(module) != room(other) and LEVEL.get(room(module), TOP) <= LEVEL.get(room(other), TOP)
        if module not in ("__init__", "__main__")
    ]
    assert upwards == []


def test_no_import_closes_a_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in GRAPH.get(module, ()):
                visit(other, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_the_graph_is_that_of_the_package():
    assert {"contracts", "errors"} <= GRAPH["data.corpus"]
    assert {room(module) for module in GRAPH} >= {*LEVEL} - {"api"}
