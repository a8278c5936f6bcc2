"""The layers of transformers of all families."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from runner.embeddings.pretrained_transformer.backbone import MOST_PIECES, rows_for_tests
from runner.embeddings.pretrained_transformer.depth import layers_in_turn
from runner.embeddings.pretrained_transformer.files import PretrainedFiles
from runner.embeddings.pretrained_transformer.load import load_model
from tests.helpers.pretrained import FAMILIES, UNSUPPORTED, save_tiny


@pytest.mark.parametrize("family", [*FAMILIES, *UNSUPPORTED])
def test_layers_run_once_in_every_pass(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, family)
    backbone = load_model(PretrainedFiles(folder, str(folder), folder), None, None, recompute=False).model
    layers, calls = layers_in_turn(backbone, np.array([1, MOST_PIECES])), []
    assert len(layers) == (0 if family == "albert" else 2)  # ALBERT runs one layer twice
    for place, layer in enumerate(layers):
        layer.register_forward_hook(lambda *arguments, place=place: calls.append(place))
    backbone(rows_for_tests((3, 5), backbone.pad, backbone.vocabulary), None, False)
    assert calls == [*range(len(layers))]
    assert not layers_in_turn(backbone, np.array([0, 5])), "a pass of empty rows alone runs no layer"
    assert not layers_in_turn(backbone, np.array([5, MOST_PIECES + 1])), "a longer row runs in parts"
