"""Word dropout: the tokens that become <unk>, their number, and when it applies."""

from __future__ import annotations

import torch

from runner.embeddings.word import UnkDropout
from runner.ragged.ragged import Ragged
from runner.text.vocab import SPECIALS, Vocab
from tests.helpers.contract import rows_of

VOCAB = Vocab(("a", "b"), SPECIALS)


def replaced(module: UnkDropout, *ids: int) -> torch.Tensor:
    values: torch.Tensor = module(Ragged(torch.tensor(ids, dtype=torch.int32), rows_of((len(ids),)), "packed")).values
    return values


def test_unk_dropout_replaces_a_share_of_known_tokens_only_in_training() -> None:
    torch.manual_seed(1)
    module = UnkDropout(VOCAB, 0.3)
    ids = [3, 4] * 5000
    got = replaced(module, *ids)
    unknown = got == 1
    assert abs(float(unknown.double().mean()) - 0.3) < 0.02
    assert torch.equal(got[~unknown], torch.tensor(ids, dtype=torch.int32)[~unknown])
    assert not torch.equal(replaced(module, *ids), got)  # drawn anew
    assert replaced(module.eval(), *ids).tolist() == ids
    assert replaced(UnkDropout(VOCAB, 0.0), *ids).tolist() == ids


def test_special_tokens_stay() -> None:
    assert set(replaced(UnkDropout(VOCAB, 0.99), *[0, 1, 2] * 200).tolist()) == {0, 1, 2}
    assert replaced(UnkDropout(Vocab(("x", "y")), 0.99), *[0, 1] * 50).tolist() == [0, 1] * 50


def test_a_seeded_row_draws_the_same_in_any_batch_and_layout() -> None:
    module = UnkDropout(VOCAB, 0.5)
    ids = torch.tensor([3] * 30, dtype=torch.int32)
    rows = rows_of((20, 0, 10), widen=2).with_seeds(torch.tensor([5, 6, 7]))
    together = module(Ragged(ids, rows, "packed"))
    alone = module(Ragged(ids[:10], rows_of((10,)).with_seeds(torch.tensor([7])), "packed"))
    assert torch.equal(together.values[20:], alone.values)
    padded = module(Ragged(ids, rows, "packed").pad())
    assert torch.equal(padded.tokens(), together.values)
    assert padded.values[~rows.mask].eq(0).all()
    assert not torch.equal(together.values[:10], together.values[20:])
