"""The JSON beside an exported file: how a program without this package makes its inputs and reads its outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from runner.common.errors import HydromelError
from runner.data.numericalize import TARGET
from runner.data.pairs import SEPARATOR, pairs_of
from runner.embeddings.pretrained import PretrainedEmbedding
from runner.encoders.transformer import Transformer
from runner.export.audit import TOLERANCE, Comparison
from runner.export.formats import Format
from runner.export.programs import Program, RowsProgram
from runner.export.traceable import NO_SYMBOL
from runner.inference.trained import TrainedModel
from runner.text.characters import BEGIN, END, FIRST, UNKNOWN
from runner.text.tokenizers import BY_NAME, WORD, tokenizer_of
from runner.text.vocab import Feature

VERSION = 1


@runtime_checkable
class _HasSchemes(Protocol):
    """A task whose tags encode spans: as the data has them, and as the model learned them."""

    scheme: str | None
    learned_scheme: str | None


def manifest_path(file: Path) -> Path:
    """Return the path of the JSON beside a file."""
    return file.with_name(f"{file.name}.json")


def manifest(
    trained: TrainedModel,
    program: Program,
    form: Format,
    content: bytes,
    compared: Comparison,
    more: Mapping[str, object],
) -> dict[str, object]:
    """Return the content of the JSON."""
    vocab = trained.vocabs[TARGET].learned
    described: dict[str, object] = {
        "hydromel_export": VERSION,
        "format": form,
        "sha256": hashlib.sha256(content).hexdigest(),
        "torch": torch.__version__,
        "task": trained.task.name,
        "inputs": [asdict(port) for port in program.inputs],
        "outputs": [asdict(port) for port in program.outputs],
        "text": {"tokenizer": _tokenizer(trained), "pairs": pairs_of(trained.task), **_limits(trained, program)},
        "features": {name: _feature(trained, program, name) for name in trained.features},
        "labels": [*vocab.tokens],
        **({"schemes": _schemes(trained)} if isinstance(program, RowsProgram) and program.per_token else {}),
        "audit": {
            "rows": compared.rows,
            "compared": compared.compared,
            "batch_sizes": sorted({*compared.batch_sizes}),
            "widths": [min(compared.widths), max(compared.widths)],
            "tolerance": TOLERANCE,
            "largest_difference": compared.differences,
            "same_answers": compared.same,
            "ties": compared.ties,
            "changed_answers": compared.changed,
        },
        **more,
    }
    if pairs_of(trained.task) == "joined":
        described["separator"] = SEPARATOR
    return described


def notes(trained: TrainedModel) -> list[str]:
    """Return what the file does not do as `hydromel-predict` does, one line each."""
    found = [
        f"words that are not in `features.{module.feature}.strings` are read as <unk>, which hydromel-predict looks up "
        f"in {module.path.name}"
        for module in trained.model.modules()
        if isinstance(module, PretrainedEmbedding)
    ]
    schemes = _schemes(trained)
    if schemes["learned"] != schemes["data"]:
        found.append(f"tags are in {schemes['learned']}; hydromel-predict converts them to {schemes['data']}")
    return found


def _schemes(trained: TrainedModel) -> dict[str, str | None]:
    task = trained.task
    if not isinstance(task, _HasSchemes):
        return {"learned": None, "data": None}
    return {"learned": task.learned_scheme, "data": task.scheme}


def _tokenizer(trained: TrainedModel) -> dict[str, object]:
    tokenizer = tokenizer_of(trained.corpus)
    name = next((name for name, known in BY_NAME.items() if known == tokenizer), repr(tokenizer))
    return {"name": name, "pattern": WORD if name == "words" else None}


def _limits(trained: TrainedModel, program: Program) -> dict[str, object]:
    cut = trained.truncation
    encoder = trained.model.encoder
    positions = encoder.max_positions if isinstance(encoder, Transformer) and encoder.table is not None else None
    limit = cut.max_length if isinstance(program, RowsProgram) and not program.per_token else None
    return {"max_length": limit, "truncate": cut.keep if limit else None, "most_tokens": positions}


def _feature(trained: TrainedModel, program: Program, name: str) -> dict[str, object]:
    """Return how a feature is computed from tokens: its options, and its vocabulary."""
    feature: object = trained.features[name]
    vocab, options = trained.vocabs[name], dict[str, object]()
    if is_dataclass(feature):
        options = {option.name: getattr(feature, option.name) for option in fields(feature)}
    kind = "words" if type(feature) is Feature else type(feature).__name__.lower()
    described: dict[str, object] = {"kind": kind, **options, "specials": [*vocab.specials]}
    if name in program.spelled:
        spelled = program.spelled[name].spelled
        return described | {
            "alphabet": vocab.alphabet,
            "max_characters": spelled.max_characters,
            "symbols": {"none": NO_SYMBOL, "unknown": UNKNOWN, "begin": BEGIN, "end": END, "first": FIRST},
        }
    return described | {
        "strings": [*vocab.strings],
        **({"merges": [*vocab.merges]} if vocab.merges is not None else {}),
    }


def check_output(path: Path, form: Format) -> None:
    """Raise a HydromelError if a file cannot have this name in a format."""
    if form == "torch" and path.suffix != ".pt2":
        raise HydromelError(f"--output {path}: torch loads programs from files that end in .pt2 only")
