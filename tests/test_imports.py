"""Imports point in one direction: no module of a lower layer knows one of a higher; and there are no circles."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("runner", "tasks", "reporting")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MOST_MODULES = 16  # in a package, besides its __init__.py

CORE = "runner.common runner.terminal runner.compat runner.interfaces runner.ragged runner.tables runner.text"
MODEL = f"{CORE} runner.config runner.components runner.model runner.batching runner.data runner.training"
BASICS = "runner.common.arrays runner.common.errors runner.common.types"
TENSORS = f"{BASICS} runner.compat.torch runner.ragged.shapes runner.ragged.ragged runner.ragged.rows"
WORDS = "runner.text.characters runner.text.vocab"
# by runs and reports
SHARED = (
    "runner.common.bounded runner.common.class_names runner.common.errors runner.common.files runner.common.imports "
    "runner.common.pages runner.common.printable runner.common.records runner.common.run_names "
    "runner.common.run_schema runner.common.seal runner.terminal runner.tables runner.compat.mlflow"
)

# What the modules of a package may import, besides each other: packages (without those within them) or single modules.
# Only what stands above in this table can be named, so packages are in no circles. `runner.interfaces`,
# `runner.model` and `tasks.targets` are modules that stand lower than the packages beside them,
# and have layers of their own.
LAYERS = {
    "runner": "",
    "runner.common": "",
    "runner.terminal": "runner.common",
    "runner.tables": "runner.common",
    "runner.compat": "runner.common.errors",
    "runner.config": "runner.common runner.compat",
    "runner.distributed": "runner.common runner.terminal",
    "runner.ragged": "runner.common",
    "runner.text": "runner.common",
    "runner.text.formats": "runner.common runner.text",  # `runner.text.arrow`
    "runner.interfaces": "runner.common runner.ragged runner.text",
    "runner.profiling": "runner.common runner.compat runner.config",
    "runner.tracking": "runner.common runner.compat runner.config runner.profiling",
    "runner.batching": "runner.common runner.ragged runner.interfaces",
    "runner.components": f"{CORE} runner.config runner.tracking runner.batching",
    "runner.data": f"{CORE} runner.config runner.batching runner.components",
    "runner.layers": TENSORS,
    "runner.layers.recurrent": f"{TENSORS} runner.layers runner.profiling.kernels",
    "runner.layers.crf": f"{TENSORS} runner.layers",
    "runner.embeddings.vector_files": "runner.common runner.text",
    "runner.embeddings.pretrained_transformer": (
        f"{TENSORS} {WORDS} runner.common runner.compat.transformers runner.interfaces runner.ragged.batch "
        "runner.layers runner.text.pieces"
    ),
    "runner.embeddings": (
        f"{TENSORS} {WORDS} runner.interfaces runner.ragged.batch runner.layers runner.layers.recurrent "
        "runner.embeddings.vector_files"
    ),
    "runner.encoders": f"{TENSORS} runner.interfaces runner.layers runner.layers.recurrent",
    "runner.model": f"{CORE} runner.config.instantiate runner.components runner.layers",
    "runner.training": (
        f"{CORE} runner.config runner.components runner.distributed runner.profiling runner.tracking runner.batching "
        "runner.layers runner.encoders runner.model"
    ),
    "runner.advisor": f"{MODEL} runner.profiling runner.tracking runner.layers",
    "runner.inference": f"{MODEL} runner.text.formats",
    "runner.inference.generation": f"{MODEL} runner.layers runner.encoders runner.inference",
    "runner.inference.evaluation": f"{MODEL} runner.embeddings runner.inference runner.inference.generation",
    "runner.export": (
        f"{MODEL} runner.layers runner.embeddings runner.embeddings.pretrained_transformer runner.encoders "
        "runner.inference runner.inference.generation"
    ),
    "runner.inference.inspection": f"{MODEL} runner.layers.recurrent runner.inference runner.inference.generation",
    "runner.experiment": f"{MODEL} runner.distributed runner.profiling runner.tracking runner.advisor runner.inference",
    "runner.sweeps": "runner.common runner.terminal runner.config runner.tracking",
    "runner.sweeps.search": (
        "runner.common runner.terminal runner.config runner.tracking runner.components runner.sweeps"
    ),
    "runner.audit.tracing": "runner.common runner.compat runner.interfaces runner.ragged runner.layers",
    "runner.audit.checks": f"{MODEL} runner.profiling.kernels runner.audit.tracing",
    "runner.audit.subjects": f"{MODEL} runner.encoders runner.audit.tracing runner.audit.checks",
    "runner.audit": f"{MODEL} runner.profiling.kernels runner.audit.tracing runner.audit.checks runner.audit.subjects",
    "runner.audit.gallery": (
        "runner.common runner.terminal runner.interfaces runner.audit.checks runner.audit.subjects runner.audit"
    ),
    "runner.cli": (
        f"{MODEL} runner.text.formats runner.profiling runner.tracking runner.advisor runner.inference "
        "runner.inference.generation runner.inference.evaluation runner.inference.inspection runner.experiment "
        "runner.sweeps runner.sweeps.search runner.audit runner.audit.gallery runner.export"
    ),
    "runner.serving": (
        f"{MODEL} runner.text.formats runner.inference runner.inference.generation runner.cli.run_arguments"
    ),
    "tasks.targets": f"{CORE} runner.layers",
    "tasks.spans": "runner.common runner.tables runner.text runner.layers.crf",
    "tasks.heads": f"{CORE} runner.layers runner.layers.crf tasks.targets",
    "tasks.metrics": f"{CORE} runner.inference runner.inference.evaluation tasks.targets tasks.spans",
    "tasks.datasets": "runner.common runner.text runner.text.formats tasks.spans",
    "tasks.datasets.stdlib": "runner.common runner.text tasks.datasets",
    "tasks.baselines": f"{CORE} runner.layers tasks.targets tasks.heads",
    "tasks.predictions": (
        f"{CORE} runner.inference runner.text.formats tasks.targets tasks.spans tasks.metrics tasks.datasets"
    ),
    "tasks": (
        f"{CORE} runner.layers runner.layers.crf runner.inference tasks.targets tasks.spans tasks.heads tasks.metrics "
        "tasks.baselines tasks.predictions"
    ),
    "reporting.statistics": "runner.common.intervals",
    "reporting.runs": f"{SHARED} reporting.statistics",
    "reporting.comparison": f"{SHARED} reporting.statistics reporting.runs",
    "reporting.plots": f"{SHARED} reporting.statistics reporting.runs reporting.comparison",
    "reporting.views": f"{SHARED} reporting.statistics reporting.runs reporting.comparison reporting.plots",
    # the report is logged where runs are: how a store of MLflow is reached is known once
    "reporting.mlflow_ui": (
        f"{SHARED} runner.tracking.mlflow_model runner.tracking.mlflow_store reporting.runs reporting.views"
    ),
    "reporting": (f"{SHARED} reporting.runs reporting.comparison reporting.plots reporting.views reporting.mlflow_ui"),
    # the Python interface stands on top, also above the reports
    "runner.api": (
        f"{MODEL} runner.text.formats runner.tracking runner.inference runner.inference.generation runner.experiment "
        "runner.audit runner.audit.checks runner.cli reporting.runs reporting.comparison reporting.views"
    ),
}
# Modules that import less than others of their package may: all that they import.
NARROWER = {
    "runner.common.arrays": "",
    "runner.common.bounded": "runner.common.errors runner.common.run_schema",
    "runner.common.errors": "",
    "runner.common.imports": "",
    "runner.common.types": "",
    "runner.common.run_schema": "",
    "runner.common.intervals": "",
    "runner.common.pages": "runner.common.printable",
    "runner.common.printable": "",
    "runner.common.records": "runner.common.errors",
    "runner.common.class_names": "",
    "runner.profiling.kernels": "runner.common.dtypes runner.compat.torch",
    "runner.ragged.rows": "runner.common.arrays",
    "runner.ragged.ragged": "runner.common.arrays runner.ragged.rows",
    "runner.ragged.updates": "runner.common.arrays",
    "runner.ragged.shapes": "runner.common.arrays runner.ragged.updates",
    "runner.text.vocab": "runner.common.errors runner.common.types runner.text.normal_forms",
    "runner.text.characters": "runner.text.vocab",
    "runner.tracking.mlflow_store": (
        "runner.common.errors runner.common.files runner.common.imports runner.compat.mlflow"
    ),
}
_PLANS = ("plan", "shuffled", "bucketed", "same_length", "token_budget", "shuffle_quality")
PLANS = {f"runner.batching.{name}" for name in _PLANS}
BELOW_PLANS = {*BASICS.split(), "runner.common.records", "runner.ragged.shapes", "runner.ragged.updates"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def imported(path: Path) -> set[str]:
    """Modules that a file imports, at its top or within functions, type-checking imports too."""
    result = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            result |= (inside & MODULES.keys()) or {node.module}
    return result


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def ours(module: str) -> set[str]:
    return {name for name in IMPORTS[module] if name.split(".")[0] in PACKAGES}


def is_package(module: str) -> bool:
    return MODULES[module].name == "__init__.py"


def package_of(module: str) -> str:
    return module if is_package(module) else module.rpartition(".")[0]


def layer_of(module: str) -> str:
    return module if module in LAYERS else package_of(module)


def within(package: str) -> list[str]:
    """The modules of a package, but for those of packages within it."""
    return [name for name in MODULES if not is_package(name) and package_of(name) == package]


def test_every_package_has_a_layer_and_every_layer_is_there() -> None:
    packages = {name for name in MODULES if is_package(name)}
    assert {path.parent for path in FILES} == {MODULES[name].parent for name in packages}, "no __init__.py"
    assert packages == {name for name in LAYERS if name not in MODULES or is_package(name)}
    for named in (*LAYERS, *NARROWER, *" ".join([*LAYERS.values(), *NARROWER.values()]).split(), *PLANS):
        assert named in MODULES, f"there is no {named}"


def test_a_layer_is_built_on_those_above_it_in_the_table() -> None:
    layers = list(LAYERS)
    for place, layer in enumerate(layers):
        for allowed in LAYERS[layer].split():
            assert layer_of(allowed) in layers[:place], f"{layer} stands above {allowed}"


@pytest.mark.parametrize("layer", LAYERS)
def test_a_module_imports_only_what_stands_below_it(layer: str) -> None:
    allowed = {layer, *LAYERS[layer].split()}
    for module in (name for name in MODULES if layer_of(name) == layer):
        beyond = {name for name in ours(module) if name not in allowed and layer_of(name) not in allowed}
        assert not beyond, f"{module} imports {beyond}"


@pytest.mark.parametrize("module", NARROWER)
def test_a_module_that_everything_stands_on_imports_next_to_nothing(module: str) -> None:
    assert ours(module) <= set(NARROWER[module].split())


def test_the_runner_knows_nothing_of_tasks_and_reports() -> None:
    for module in MODULES:
        roots = {name.split(".")[0] for name in ours(module)} if layer_of(module) != "runner.api" else set()
        assert roots <= {"runner", module.split(".")[0]}, module


def test_plans_and_reports_do_without_torch() -> None:
    for module in [*(name for name in MODULES if name.split(".")[0] == "reporting"), *PLANS]:
        assert not any(name.split(".")[0] == "torch" for name in IMPORTS[module]), module
    for plan in PLANS:
        assert ours(plan) <= PLANS | BELOW_PLANS, plan


def test_nothing_is_imported_in_circles() -> None:
    TopologicalSorter({module: ours(module) & MODULES.keys() for module in MODULES}).prepare()
    layers: dict[str, set[str]] = {layer: set() for layer in LAYERS}
    for module in MODULES:
        layers[layer_of(module)] |= {layer_of(name) for name in ours(module) & MODULES.keys()} - {layer_of(module)}
    TopologicalSorter(layers).prepare()


def test_no_module_lies_about_and_no_package_is_crowded() -> None:
    assert set(within("runner")) == {"runner.interfaces", "runner.model"}
    assert set(within("tasks")) == {"tasks.classify", "tasks.lm", "tasks.regress", "tasks.tag", "tasks.targets"}
    assert set(within("reporting")) == {"reporting.compare"}
    for package in (name for name in MODULES if is_package(name)):
        assert len(within(package)) <= MOST_MODULES, f"{package} has {len(within(package))} modules"
        assert ast.get_docstring(ast.parse(MODULES[package].read_text(encoding="utf-8"))) or "", (
            f"{package} does not say what belongs in it"
        )
