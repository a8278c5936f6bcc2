"""The tables and lines that the command prints about an exported file."""

from __future__ import annotations

from rich.table import Table

from runner.export.export import Exported, Measured
from runner.export.manifest import manifest_path, notes
from runner.export.programs import Program, RowsProgram
from runner.terminal.rich_tables import PlainConsole, plain_table


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
        is_int8 = file.name.endswith("int8")
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
    table = plain_table("", f"{exported.real.name} {exported.figure}", "rows/s", "MB", numbers=True)
    for result in exported.measured:
        quality = "-" if result.quality is None else f"{result.quality:.2f}"
        speed = "-" if result.rows_per_second is None else f"{result.rows_per_second:,.0f}"
        table.add_row(result.name, quality, speed, f"{result.size / 1e6:.2f}")
    return table
