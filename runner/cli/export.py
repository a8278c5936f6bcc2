"""The command `hydromel-export`: write a finished run as a file for other programs, and compare both."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cli.run_arguments import RUN_HELP, add_folder_flags, add_plugins_flag, check_run, loaded
from runner.common.errors import HydromelError
from runner.common.files import check_writable
from runner.common.imports import importing
from runner.common.run_names import run_name
from runner.terminal.command_line import Parser, exit_code

if TYPE_CHECKING:  # importing them takes a second
    import torch

    from runner.config.schema import Dtype

_EXAMPLES = """examples:
  hydromel-export runs/first                         first.onnx, and first.onnx.json: vocabularies and labels
  hydromel-export RUN --format torch --output m.pt2  for torch.export.load
  hydromel-export RUN --output model.onnx --int8     weights in 8 bits, with what that costs
  hydromel-export RUN --output lm.onnx --part lines  a language model of whole lines
  hydromel-export RUN --format transformers          a folder: the pretrained transformer as trained, adapters merged

exit codes: 0, 1 (an error, in one line; also a file that differs from the run, which is removed), 130 (interrupted).
See docs/export.md."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return exit_code(lambda: _export(parser().parse_args(arguments)))


def _export(options: argparse.Namespace) -> int:
    if options.int8 and options.format != "onnx":
        raise HydromelError("--int8 needs --format onnx: torch has no quantisation that its programs can hold")
    if options.format == "transformers" and (options.part is not None or options.split is not None):
        raise HydromelError("--format transformers writes no program; leave out --part and --split")
    check_run(options)
    with importing():
        # imports torch, which --help and the message for a mistyped option should not wait for
        from runner.export.export import export
        from runner.export.folders import check_folder, export_folder
        from runner.export.formats import check_format
        from runner.export.manifest import check_output, manifest_path
        from runner.export.report import print_folder, print_report
        from runner.inference.trained import TrainedModel
        from runner.training.checkpoint import checkpoint_path

    if options.format == "transformers":
        folder = options.output or Path(f"{Path(options.run).name}-transformer")
        check_folder(folder)
        difference = export_folder(loaded(options, TrainedModel.load), folder)
        print_folder(folder, difference)
        return 0
    check_format(options.format)
    if options.output is None:
        options.output = Path(Path(options.run).name + (".pt2" if options.format == "torch" else ".onnx"))
    check_output(options.output, options.format)
    for path in (options.output, manifest_path(options.output)):
        check_writable(path)
    sizes: list[int] = []

    def load(
        folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> TrainedModel:
        sizes.append(checkpoint_path(folder, "best").stat().st_size)
        return TrainedModel.load(folder, device, dtype, plugins, data_dir)

    trained = loaded(options, load)
    arguments = (options.part, options.int8, options.split, options.rows, options.seed, sizes[-1])
    print_report(export(trained, options.output, options.format, *arguments))
    return 0


def parser() -> Parser:
    command = Parser(
        prog="hydromel-export",
        description="Write the best checkpoint of a finished run as a file that needs neither this package nor its "
        "config, in float32 and for padded rows of any number and length. The file is compared with the run on rows of "
        "its data set first, and not written if it computes anything else.",
        epilog=_EXAMPLES,
    )
    add, count = command.add_argument, command.add_count
    add("run", type=run_name, metavar="RUN", help=RUN_HELP)
    add(
        "--format",
        choices=("onnx", "torch", "transformers"),
        default="onnx",
        help="ONNX; a program of torch.export; a folder",
    )
    output = (
        "the file; FILE.json gets vocabularies and labels (default: the run's name with .onnx or .pt2, or a folder)"
    )
    add("--output", type=Path, metavar="FILE", help=output)
    part = "of a language model: one token of each row with state in and out, or whole lines (default: step, if it can)"
    add("--part", choices=("step", "lines"), help=part)
    add("--int8", action="store_true", help="weights in 8 bits; prints what that costs (onnx)")
    split = "split whose rows are compared (default: test, or valid if there is no test)"
    add("--split", choices=("train", "valid", "test"), help=split)
    count("--rows", "rows that are compared", 100, least=2)
    count("--seed", "of the choice of rows and of the ids in padding", 1, least=0)
    add_folder_flags(command)
    add("--data-dir", metavar="FOLDER", help="folder of the data sets and vectors (default: the one used in training)")
    add_plugins_flag(command)
    command.set_defaults(device="cpu", dtype="float32")
    return command


if __name__ == "__main__":
    sys.exit(main())
