"""The tables and lines that the command prints about an exported file."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from runner.export.export import INT8, Exported, Measured
from runner.export.manifest import manifest_path, notes
from runner.export.programs import Program, RowsProgram
from runner.export.speed import unit_of
from runner.terminal.rich_tables import PlainConsole, plain_table

_DECIMALS = 2  # of figures of quality


def print_folder(folder: Path, difference: float) -> None:
    """Print where the transformer of a run was written, and by how much its vectors differ from the run's."""
    PlainConsole().print(
        f"{folder}: the run's transformer, adapters merged; its vectors differ by {difference:.1e}. Encoder and head "
        f"are not part of it. embedding.path={folder} reads it, and so does transformers"
    )


def print_report(exported: Exported) -> None:
    """Print what the file reads and computes, how it was compared, and what it costs."""
    console = PlainConsole()
    console.print(_ports(exported.program))
    files = exported.measured[1:]
    found = files[-1].compared
    assert found is not None
    console.print(
        f"compared with the run on {found.rows} rows of {exported.real.name}: batches of "
        f"{', '.join(map(str, sorted({*found.batch_sizes})))} rows, widths {min(found.widths)} to {max(found.widths)}, "
        "padding with padding ids and with other ids"
    )
    console.print(_differences(exported, files))
    console.print(_costs(exported))
    if files[-1].name.endswith(INT8):
        console.print(_cost_of_int8(exported))
    for note in notes(exported.real.trained):
        console.print(f"note: {note}")
    size = exported.path.stat().st_size / 1e6
    console.print(f"{exported.path} ({size:.2f} MB); vocabularies and labels: {manifest_path(exported.path).name}")


def _ports(program: Program) -> Table:
    table = plain_table("", "name", "type", "shape", "meaning")
    for role, ports in (("in", program.inputs), ("out", program.outputs)):
        for port in ports:
            table.add_row(role, port.name, port.dtype, " x ".join(map(str, port.shape)), port.meaning)
    return table


def _differences(exported: Exported, files: list[Measured]) -> Table:
    table = plain_table("file", "largest difference", "tolerance", "between batches", "same answers", numbers=True)
    for file in files:
        found = file.compared
        assert found is not None
        worst = max(found.differences, key=lambda name: found.differences[name] / found.tolerances[name])
        is_int8 = file.name.endswith(INT8)
        answers = "-"
        if isinstance(exported.program, RowsProgram) and not exported.program.has_numbers:
            answers = f"{found.same} of {found.compared}" + (f", {found.ties} ties" if found.ties else "")
        table.add_row(
            file.name,
            f"{found.differences[worst]:.2g} ({worst})",
            "none" if is_int8 else f"{found.tolerances[worst]:.2g}",
            f"{found.between[worst]:.2g}",
            answers,
        )
    return table


def _costs(exported: Exported) -> Table:
    unit = unit_of(exported.program)
    table = plain_table("", f"{exported.real.name} {exported.figure}", unit, "MB", numbers=True)
    for result in exported.measured:
        quality = "-" if result.quality is None else f"{result.quality:.{_DECIMALS}f}"
        table.add_row(result.name, quality, f"{result.speed:,.0f}", f"{result.size / 1e6:.2f}")
    return table


def _cost_of_int8(exported: Exported) -> str:
    """Return what the weights in 8 bits cost in quality, and what they save, beside those in float32."""
    exact, small = exported.measured[1:]
    found, split, figure = small.compared, exported.real.name, exported.figure
    assert found is not None
    quality = f"{split} {figure} is not measured for language models"
    if exact.quality is not None and small.quality is not None:
        change = small.quality - exact.quality
        quality = (
            f"{split} {figure} {small.quality:.{_DECIMALS}f} instead of {exact.quality:.{_DECIMALS}f} "
            f"({change:+.{_DECIMALS}f})"
        )
    changed = found.compared - found.same
    answers = f", {changed} of {found.compared} answers changed" if found.same + found.ties + found.changed else ""
    size, speed = small.size / exact.size, small.speed / exact.speed
    return f"8 bits: {quality}{answers}; {size:.2f} of the size and {speed:.2f} of the speed of float32"
