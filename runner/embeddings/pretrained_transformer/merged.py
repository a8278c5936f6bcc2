"""Write a trained transformer as a folder of transformers' format, with its adapters merged into its matrices."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import nn

from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.embeddings.pretrained_transformer.backbone import PieceModel, in_float64, rows_for_tests
from runner.embeddings.pretrained_transformer.files import CONFIG, TOKENIZER, PretrainedFiles, quiet
from runner.embeddings.pretrained_transformer.load import load_model
from runner.embeddings.pretrained_transformer.static import TABLE, StaticTable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Largest difference in float64 of the folder's vectors from the run's, relative to the largest number: merging rounds
# each weight to float32.
TOLERANCE = 1e-4


def write_folder(folder: Path, source: PretrainedFiles, backbone: PieceModel, whole: PreTrainedModel | None) -> float:
    """Write a model with its tokenizer, read it again, and return by how much its vectors differ from the run's.

    Args:
        folder: an existing, empty folder.
        source: the files of the model that training started from.
        whole: the model of transformers to write, such as that of `backbone` or one with its output layer; None: a
            table of vectors.

    Raises:
        HydromelError: the vectors differ by more than rounding.
    """
    for pattern in TOKENIZER:
        for file in source.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)
    if whole is None:
        assert isinstance(backbone, StaticTable)
        save_file({TABLE: backbone.table.weight.detach().contiguous()}, folder / "model.safetensors")
        write_text(folder / CONFIG, json.dumps({**source.read_config()}))
    else:
        with quiet():
            _merged(whole).save_pretrained(folder)
    again = load_model(PretrainedFiles(folder, str(folder), folder), None, None, recompute=False).model
    ids = rows_for_tests((7, 1, 4), backbone.pad, backbone.vocabulary)
    with in_float64(backbone), in_float64(again):
        expected, got = (model(ids, None, False)[-1].values for model in (backbone, again))
    difference, largest = float((got - expected).abs().max()), float(expected.abs().max())
    if not difference <= TOLERANCE * max(1.0, largest):
        raise HydromelError(
            f"{folder.name} was not written, since its vectors differ from the run's by {difference:.1e}, of "
            f"{largest:.1e}"
        )
    return difference


def _merged(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model whose adapters are added to the matrices beside them."""
    plain = copy.deepcopy(model)
    adapted = [(name, layer) for name, layer in plain.named_modules() if hasattr(layer, "get_base_layer")]
    for name, layer in adapted:
        layer.merge()
        parent, _, child = name.rpartition(".")
        base = layer.get_base_layer()
        assert isinstance(base, nn.Module)
        setattr(plain.get_submodule(parent), child, base)
    return plain
