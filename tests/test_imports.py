"""Imports point in one direction: no module of a lower layer knows one of a higher; and there are no circles."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runner", "tasks", "reporting")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BASICS = {"runner.errors", "runner.types"}
RECORDS = {"runner.names", "runner.class_names"}
ROWS = {"runner.ragged", "runner.rows"}
WORDS = {"runner.vocab", "runner.spelling"}
PLANS = {"plan", "shuffled", "bucketed", "same_length", "token_budget", "padding", "quality", "shapes"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path) for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, at its top or within functions, type-checking imports too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inside & MODULES) or {node.module}
    return found


IMPORTS = {name_of(path): imported(path) for path in FILES}


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] in PACKAGES}


def modules(prefix: str) -> list[str]:
    found = [name for name in sorted(MODULES) if name == prefix or name.startswith(prefix + ".")]
    assert found, prefix
    return found


def test_there_are_modules() -> None:
    assert len(FILES) > 50


@pytest.mark.parametrize(
    ("prefix", "allowed"),
    [
        ("runner.errors", ()),
        ("runner.types", ()),
        ("runner.names", ()),
        ("runner.class_names", ()),
        ("runner.rows", ()),
        ("runner.ragged", ("runner.rows",)),
        ("runner.vocab", ("runner.types",)),
        ("runner.spelling", ("runner.vocab",)),
        ("runner.blocks", ()),
        ("runner.layers", ("runner.layers", "runner.blocks", *ROWS, *BASICS)),
        ("runner.embeddings", ("runner.embeddings", "runner.layers", *ROWS, *WORDS, *BASICS)),
        (
            "runner.encoders",
            ("runner.encoders", "runner.layers", *ROWS, "runner.task", *BASICS),
        ),
        ("runner.command_line", ("runner.errors",)),
        # the report is logged where runs are: how a store of MLflow is reached is known once
        ("runner.mlflow_store", ("runner.errors",)),
        ("reporting", ("reporting", *RECORDS, "runner.command_line", "runner.errors", "runner.mlflow_store")),
        ("runner", ("runner",)),
        ("tasks", ("tasks", "runner")),
    ],
)
def test_a_module_imports_only_what_stands_below_it(prefix: str, allowed: tuple[str, ...]) -> None:
    for module in modules(prefix):
        beyond = {
            name for name in ours(module) if not any(name == one or name.startswith(f"{one}.") for one in allowed)
        }
        assert not beyond, f"{module} imports {beyond}"


def test_plans_and_reports_do_without_torch() -> None:
    for module in [*modules("reporting"), *(f"runner.batching.{plan}" for plan in PLANS)]:
        assert not any(name.split(".")[0] == "torch" for name in IMPORTS[module]), module
    for plan in PLANS:
        below = ours(f"runner.batching.{plan}") - {f"runner.batching.{one}" for one in PLANS}
        assert below <= {*BASICS, "runner.names", "runner.blocks"}, plan


def test_nothing_is_imported_in_circles() -> None:
    TopologicalSorter({module: ours(module) & MODULES for module in MODULES}).prepare()
