"""Private names of other libraries stand in runner/compat alone, and a missing one is reported in one line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.common.errors import HydromelError
from runner.compat.private import private_api

ROOT = Path(__file__).parents[3]
COMPAT = ROOT / "runner" / "compat"
FILES = [path for package in ("runner", "tasks", "reporting") for path in (ROOT / package).rglob("*.py")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
PRIVATE = re.compile(r"_[a-zA-Z]\w*")
PRIVATE_PATH = re.compile(r"(hydra|omegaconf|mlflow|torch)(\.\w+)*\._[a-z]\w*(\.\w+)*")
_OF_TENSORBOARD = ("tensorboard.compat", "tensorboard.plugins", "tensorboard.summary.writer")
INTERNAL = (
    "mlflow.store",
    "mlflow.server",
    "mlflow.utils",
    *_OF_TENSORBOARD,
)  # without an underscore, but not documented either
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace", "_exit"}  # of named tuples, and of os


def own_names() -> set[str]:
    """Return every name that these packages define themselves."""
    names = set(DOCUMENTED)
    for node in (node for tree in TREES.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) in ("self", "cls", "config") else set()
    return names


def private_uses(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Yield what `tree` uses of other libraries' private names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
            of_torch = ast.unparse(node).startswith(("torch.", "_ATEN."))
            if of_torch or node.attr not in own:
                yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PRIVATE_PATH.fullmatch(node.value):
            yield node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for name in (f"{module}.{alias.name}".lstrip(".") for alias in node.names):
                if any(PRIVATE.fullmatch(part) for part in name.split(".")) or name.startswith(INTERNAL):
                    yield name


def test_private_names_stand_in_compat_alone() -> None:
    own = own_names()
    uses = {path.relative_to(ROOT).as_posix(): list(private_uses(tree, own)) for path, tree in TREES.items()}
    in_compat = {path for path, names in uses.items() if names and path.startswith("runner/compat/")}
    assert {path: names for path, names in uses.items() if names and path not in in_compat} == {}
    assert in_compat == {f"runner/compat/{name}.py" for name in ("hydra", "mlflow", "tensorboard", "torch")}


@pytest.mark.parametrize(
    "line",
    [
        "from hydra._internal.utils import get_args_parser",
        "from torch.utils import _pytree",
        "import mlflow.store.db.utils",
        "node._is_missing()",
        "torch._foreach_lerp_([], [], 1.0)",
        "target = 'hydra._internal.core_plugins.basic_sweeper.BasicSweeper'",
    ],
)
def test_the_search_finds_private_names(line: str) -> None:
    assert list(private_uses(ast.parse(line), own_names()))


def test_each_module_says_which_version_it_was_checked_with() -> None:
    for path in COMPAT.glob("*.py"):
        if path.stem not in ("__init__", "private"):
            assert re.search(r'^CHECKED = "\d+\.\d+\.\d+"$', path.read_text(encoding="utf-8"), re.MULTILINE), path


def test_a_missing_name_is_reported_in_one_line() -> None:
    line = r"^torch \S+ does not have what Hydromel uses \(.*_no_such_name.*\); install .* 'torch==2\.13\.0'$"
    with pytest.raises(HydromelError, match=line), private_api("torch", "2.13.0"):
        raise AttributeError("module 'torch' has no attribute '_no_such_name'")
    with pytest.raises(HydromelError, match="_no_such_name"), private_api("torch", "2.13.0"):
        from torch.utils import _no_such_name  # type: ignore[attr-defined]  # noqa: F401
