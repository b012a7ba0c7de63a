"""Imports run downwards: no module imports one above it, there are no cycles, and data and models do not meet."""

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import test_synchronising
import torch

import vidclf
from vidclf.run.config import CONF

ROOT = Path(vidclf.__file__).parent
SUFFIXES = (".py", ".yaml", ".md", ".html")
# From the bottom to the top; packages of one row do not import each other.
LEVELS = (
    {"errors"},
    {"system"},
    {"contracts"},
    {"data", "models"},
    {"features"},
    {"datamodule"},
    {"command"},
    {"run"},
    {"build"},
    {"pages"},
    {"evaluation"},
    {"audit", "comparison", "prediction"},
    {"reporting"},
    {"api"},
)
TOP = len(LEVELS)  # the command line and its verbs
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imported_modules(path: Path) -> set[str]:
    """Return the modules of vidclf that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    modules = {name.removeprefix("vidclf.") for name in names if name.startswith("vidclf.")}
    return {name for name in modules if (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()}


GRAPH = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): imported_modules(path)
    for path in ROOT.rglob("*.py")
    if path.name != "__init__.py" or path.stat().st_size
}


def package_of(module: str) -> str:
    """Return the first part of a module's name below vidclf."""
    return module.partition(".")[0]


def level_of(module: str) -> int:
    return LEVEL.get(package_of(module), TOP)


def test_imports_run_downwards():
    upwards = [
        f"{module} imports {target}"
        for module, targets in GRAPH.items()
        for target in targets
        if package_of(module) != package_of(target) and level_of(module) <= level_of(target)
        if module not in ("__init__", "__main__")
    ]
    assert upwards == []


def test_imports_have_no_cycle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for target in GRAPH.get(module, ()):
                visit(target, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_the_graph_covers_the_package():
    assert {"contracts", "errors"} <= GRAPH["data.corpus"]
    assert {package_of(module) for module in GRAPH} >= {*LEVEL} - {"api"}


OLD_NAMES = (  # of modules that have moved
    *(
        "run.build",
        "run.sources",
        "run.training",
        "run.grid",
        "run.fitted",
        "run.leaderboard",
        "run.leaderboard_tables",
    ),
    *("run.results", "run.choices", "evaluation.comparison", "evaluation.check", "evaluation.lookalikes"),
    *("evaluation.shortcuts", "data.container", "evaluation.page", "evaluation.rendering", "evaluation.judge"),
    *("evaluation.labelling", "evaluation.report", "evaluation.sheets"),
)


def test_no_file_mentions_a_module_that_has_moved():
    old_name = re.compile("|".join(rf"vidclf[./]{name.replace('.', '[./]')}\b" for name in OLD_NAMES))
    files = [path for folder in (ROOT, Path(CONF)) for path in folder.rglob("*") if path.suffix in SUFFIXES]
    mentions = {
        path.relative_to(path.parents[1]) for path in files if old_name.search(path.read_text(encoding="utf-8"))
    }
    assert mentions <= {Path("run/checkpoints.py")}  # which renames the classes in old checkpoints


def test_looks_at_tensors_are_counted_in_a_checkout_called_vidclf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file of the package counts, and a test of the same checkout does not."""
    checkout = tmp_path / "vidclf"
    monkeypatch.setattr(test_synchronising, "PACKAGE", checkout / "vidclf")

    def look(file: Path) -> Counter[str]:
        namespace: dict[str, Any] = {}
        exec(compile("def look(tensor):\n    return tensor.item()\n", str(file), "exec"), namespace)
        with test_synchronising.Looks() as looks:
            namespace["look"](torch.ones(1))
        return looks.found

    assert look(checkout / "vidclf" / "train.py") == {"look": 1}
    assert look(checkout / "tests" / "test_train.py") == {"": 1}
