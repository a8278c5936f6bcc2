"""Files of programs: traced, written as ONNX or by torch, and run."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.export import ExportedProgram

from runner.common.errors import HydromelError
from runner.common.files import write_bytes
from runner.export.programs import Program
from runner.ragged.traced import HostLengths

Format = Literal["onnx", "torch"]
Arrays = list[npt.NDArray[np.generic]]  # in the order of a program's inputs or outputs
Run = Callable[[Arrays], Arrays]

EXTRA = "pip install hydromel[onnx]"
OPSET = 20  # of ONNX operations
_RECURRENCE = torch.ops.hydromel.recurrence.default  # of `runner.export.traceable`
_KERNELS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh"}
# the order of the gates in ONNX, by their places in torch
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,)}


class _Shaped(Protocol):
    """A value of a graph whose shape is known."""

    shape: Sequence[int]


class _Backend(Protocol):
    """A setting of torch.backends."""

    fp32_precision: str


def check_format(form: Format) -> None:
    """Raise a HydromelError if a library that the format needs is not installed."""
    needed = ("onnx", "onnxscript", "onnxruntime") if form == "onnx" else ()
    if missing := [name for name in needed if find_spec(name) is None]:
        raise HydromelError(f"--format {form} needs {', '.join(missing)}: {EXTRA}; --format torch needs nothing more")


def trace(program: Program) -> ExportedProgram:
    """Trace a program for any number of rows and any length.

    Raises:
        HydromelError: a part of the model cannot be traced.
    """
    examples = tuple(port.example() for port in program.inputs)
    shapes = (tuple(port.dynamic() for port in program.inputs),)  # one argument takes all inputs
    with torch.no_grad(), _exporting():
        try:
            return torch.export.export(program, examples, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # of whatever a part of the model does
            raise HydromelError(_cannot_trace(error)) from error


def _cannot_trace(error: Exception) -> str:
    """Return the message that names the part of the model whose `forward` could not be traced."""
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    parts = [type(owner) for owner in owners if isinstance(owner, nn.Module) and not isinstance(owner, Program)]
    named = [part for part in parts if not part.__module__.startswith(("torch.", "runner.model"))]
    name = f"{named[-1].__module__}.{named[-1].__qualname__}" if named else "the model"
    why = str(error) if isinstance(error, HostLengths) else str(error).strip().split("\n")[0] or type(error).__name__
    return (
        f"{name} cannot be exported: {why}. The parts of configs/ can be; one of your own "
        "must compute padded rows by tensors only (docs/export.md)"
    )


def write(program: Program, traced: ExportedProgram, form: Format, path: Path) -> None:
    """Write a traced program to a file, atomically; a HydromelError if it cannot be converted or written."""
    with torch.no_grad(), _exporting():
        content = _onnx(program, traced) if form == "onnx" else _torch(traced)
    write_bytes(path, content)


def opened(form: Format, path: Path, threads: int | None = None) -> Run:
    """Return the function that a file holds, as programs without this package run it; `threads` for ONNX Runtime."""
    if form == "torch":
        module = torch.export.load(path).module()

        def run(inputs: Arrays) -> Arrays:
            with torch.no_grad():
                return [output.numpy() for output in module(*map(torch.from_numpy, inputs))]

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def _torch(traced: ExportedProgram) -> bytes:
    """Return the file of `torch.export.save`, with torch's own recurrent kernels."""
    graph, aten = traced.graph_module.graph, torch.ops.aten
    for node in [*graph.nodes]:
        if node.target is not _RECURRENCE:
            continue
        mode, inputs, hidden, memory, weights = node.args
        kernel = getattr(aten, _KERNELS[mode]).input
        options = (weights, True, 1, 0.0, False, False, True)
        with graph.inserting_before(node):
            state = [hidden, memory] if mode == "LSTM" else hidden
            call = graph.call_function(kernel, (inputs, state, *options))
        call.meta = dict(node.meta)
        if mode != "LSTM":  # two outputs: the cell state stays as it was
            call.meta["val"] = call.meta["val"][:2]
            for user in [user for user in node.users if user.args[1] == 2]:
                user.replace_all_uses_with(memory)
                graph.erase_node(user)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    graph.lint()
    traced.graph_module.recompile()
    buffer = io.BytesIO()
    torch.export.save(traced, buffer)
    return buffer.getvalue()


def _onnx(program: Program, traced: ExportedProgram) -> bytes:
    """Return a model in ONNX, with its recurrent operations, and the names of the program's ports."""
    try:
        exported = torch.onnx.export(
            traced,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            custom_translation_table={_RECURRENCE: _onnx_recurrence},
        )
    except Exception as error:  # of whatever ONNX lacks
        reason = next(
            (line for line in str(error).split("\n") if "No ONNX function" in line), str(error).split("\n")[0]
        )
        raise HydromelError(f"the model cannot be written as ONNX: {reason}; use --format torch") from error
    assert exported is not None
    graph = exported.model.graph
    for values, ports in ((graph.inputs, program.inputs), (graph.outputs, program.outputs)):
        for value, port in zip(values, ports, strict=True):
            value.name = port.name
            value.shape = type(value.shape)(port.shape)
    exported.model.producer_name = "hydromel"
    content: bytes = exported.model_proto.SerializeToString()
    return content


def _onnx_recurrence(
    mode: str, inputs: object, hidden: object, memory: object, weights: Sequence[_Shaped]
) -> tuple[object, object, object]:
    """Translate `recurrence` to LSTM, GRU or RNN of ONNX, given values of its graph."""
    from onnxscript import opset20 as op

    from_input, from_hidden, *biases = weights
    order = _GATES[mode]

    def arranged(matrix: object) -> object:
        if len(order) == 1:
            return op.Unsqueeze(matrix, [0])
        gates = op.Split(matrix, num_outputs=len(order), axis=0)
        return op.Unsqueeze(op.Concat(*(gates[place] for place in order), axis=0), [0])

    bias = op.Concat(*map(arranged, biases), axis=1)
    operands = (op.Transpose(inputs, perm=[1, 0, 2]), arranged(from_input), arranged(from_hidden), bias, None, hidden)
    size = int(from_hidden.shape[1])
    if mode == "LSTM":
        outputs, hidden, memory = op.LSTM(*operands, memory, hidden_size=size)
    elif mode == "GRU":
        outputs, hidden = op.GRU(*operands, hidden_size=size, linear_before_reset=1)
    else:
        outputs, hidden = op.RNN(*operands, hidden_size=size)
    return op.Transpose(op.Squeeze(outputs, [1]), perm=[1, 0, 2]), hidden, op.Identity(memory)


@contextmanager
def _exporting() -> Iterator[None]:
    """Keep back what torch's exporters say about their own progress, and let them read the flags of cuDNN.

    They read a flag that torch refuses to compute from other settings than its own defaults (`choose_matmul`).
    """
    cudnn: tuple[_Backend, ...] = (torch.backends.cudnn.conv, torch.backends.cudnn.rnn)  # type: ignore[attr-defined, assignment]
    precisions = [backend.fp32_precision for backend in cudnn]
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        for backend in cudnn:
            backend.fp32_precision = "tf32"
        try:
            yield
        finally:
            for backend, precision in zip(cudnn, precisions, strict=True):
                backend.fp32_precision = precision
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
