"""Weights in 8 bits, by ONNX Runtime's dynamic quantisation, which also quantises what layers read, batch by batch."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from runner.common.files import write_bytes


def quantize(source: Path, target: Path) -> None:
    """Write a model in ONNX with the weights of its matrix products, recurrent layers and tables in 8 bits."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="hydromel-export-") as folder:
        folded, quantized = Path(folder) / "folded.onnx", Path(folder) / "int8.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # only weights that are constants are quantised, and those of recurrent layers are computed from constants
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it advises on preparing models, which has been done
        try:
            quantize_dynamic(folded, quantized, weight_type=QuantType.QInt8)
        finally:
            logging.disable(before)
        write_bytes(target, quantized.read_bytes())
