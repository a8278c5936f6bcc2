"""Private attributes of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.compat.transformers import takes_attention_functions

transformers = pytest.importorskip("transformers", reason="needs the extra `pretrained`")
from tests.helpers.pretrained import save_tiny  # noqa: E402


@pytest.mark.parametrize(("family", "takes"), [("bert", True), ("qwen3", True), ("deberta-v2", False)])
def test_models_say_whether_they_take_attention_functions(family: str, takes: bool, tmp_path: Path) -> None:
    model = transformers.AutoModel.from_pretrained(save_tiny(tmp_path / family, family))
    assert takes_attention_functions(model) == takes
