"""The models of `bench.py` as others write them by hand, with torch's own modules.

Each peer is made from Hydromel's model, with its sizes and initial weights, so that both have the same loss on the same
rows. Columns are lists with one tensor per row, made once; each batch is padded anew, as in a collate function. A peer
as a careful user writes it pads with `pad_sequence` and packs rows for an LSTM. A strong one (`Strong...`) knows that
torch's LSTM is faster on padded rows, and that each distinct word of a batch needs to be composed only once.

Shapes: B rows, T tokens in the longest, C characters in the longest word, D numbers per token.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torchcrf import CRF

from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged

Column = list[Tensor]
Batched = dict[str, Tensor]  # the result of `collate` and input of the model
FORBIDDEN = -1e4  # pytorch-crf has no constraints; this is how its users forbid a transition


class ConvClassifier(nn.Module):
    """Kim's convolutions over rows padded to `width` tokens, with padding treated as text, as in Mead-Baseline.

    Without a width, rows are padded to the longest of the batch, and a mask is applied before the maximum.
    """

    def __init__(self, ours: Any, train: Batch, width: int | None) -> None:
        super().__init__()
        self.width = width
        self.words, self.labels, self.lengths = vector_rows(ours.embedding, train), train.target, lengths_of(train)
        self.vectors = vector_table(ours.embedding)
        self.convolutions = nn.ModuleList(convolution(one) for one in ours.encoder.layers[0])
        self.dropped_in, self.dropped_out = dropouts(ours.embedding, ours.head.hidden.dropouts[0])
        self.linear = like(ours.head.linear)

    def collate(self, rows: list[int]) -> Batched:
        words = pad_sequence([self.words[row][: self.width] for row in rows], batch_first=True)
        if self.width is not None:
            words = F.pad(words, (0, self.width - words.shape[1]))
        return {"words": words, "lengths": self.lengths[rows], "labels": self.labels[rows]}

    def forward(self, words: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(words, lengths), labels)

    def predict(self, words: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        return self.scores(words, lengths).argmax(dim=1)

    def scores(self, words: Tensor, lengths: Tensor) -> Tensor:
        lengths = lengths.to(words.device)
        read = self.dropped_in(self.vectors(words)).transpose(1, 2)
        found = [F.relu(one(read)[..., -words.shape[1] :]) for one in self.convolutions]
        if self.width is None:
            padding = torch.arange(words.shape[1], device=words.device) >= lengths[:, None]
            found = [one.masked_fill(padding[:, None], -torch.inf) for one in found]
        pooled = torch.cat([one.amax(dim=2) for one in found], dim=1)
        scores: Tensor = self.linear(self.dropped_out(pooled))
        return scores


class LstmClassifier(nn.Module):
    """An LSTM over packed rows, and the maximum of its states."""

    def __init__(self, ours: Any, train: Batch) -> None:
        super().__init__()
        self.words, self.labels, self.lengths = vector_rows(ours.embedding, train), train.target, lengths_of(train)
        self.vectors = vector_table(ours.embedding)
        self.lstm = lstm(*ours.encoder.forwards)
        self.dropped_in, self.dropped_out = dropouts(ours.embedding, ours.head.hidden.dropouts[0])
        self.linear = like(ours.head.linear)

    def collate(self, rows: list[int]) -> Batched:
        words = pad_sequence([self.words[row] for row in rows], batch_first=True)
        return {"words": words, "lengths": self.lengths[rows], "labels": self.labels[rows]}

    def forward(self, words: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.scores(words, lengths), labels)

    def predict(self, words: Tensor, lengths: Tensor, labels: Tensor) -> Tensor:
        return self.scores(words, lengths).argmax(dim=1)

    def scores(self, words: Tensor, lengths: Tensor) -> Tensor:
        pooled = self.states(self.dropped_in(self.vectors(words)), lengths).amax(dim=1)
        scores: Tensor = self.linear(self.dropped_out(pooled))
        return scores

    def states(self, read: Tensor, lengths: Tensor) -> Tensor:
        """Return the states of all tokens, -inf at padding."""
        states, _ = self.lstm(pack_padded_sequence(read, lengths.cpu(), batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(states, batch_first=True, padding_value=-torch.inf)[0]


class StrongLstmClassifier(LstmClassifier):
    """The LSTM over padded rows, in one kernel; what follows a row's end does not change its states."""

    def states(self, read: Tensor, lengths: Tensor) -> Tensor:
        padding = torch.arange(read.shape[1], device=read.device) >= lengths.to(read.device)[:, None]
        return self.lstm(read)[0].masked_fill(padding[:, :, None], -torch.inf)


class Tagger(nn.Module):
    """Words, characters, vectors and casing, a bidirectional LSTM and pytorch-crf."""

    def __init__(self, ours: Any, train: Batch) -> None:
        super().__init__()
        parts = ours.embedding.parts
        assert isinstance(train.target, Ragged)
        self.columns = {
            "words": known_words(parts["words"], train),
            "places": vector_rows(parts["vectors"], train),
            "casing": rows_of(train.features["casing"]),
            "tags": rows_of(train.target),
        }
        self.spelt, self.lengths = spelt(parts["chars"].spelled, train), lengths_of(train)
        self.words, self.casing = like(parts["words"].table), like(parts["casing"].table)
        self.vectors, self.characters = vector_table(parts["vectors"]), character_table(parts["chars"].spelled.table)
        self.convolutions = nn.ModuleList(convolution(one) for one in parts["chars"].convolutions)
        self.lstm = lstm(*ours.encoder.forwards, *ours.encoder.backwards)
        self.dropped_in, self.dropped_out = dropouts(ours.embedding, ours.head.dropout)
        self.linear, self.crf = like(ours.head.linear), crf(ours.head.output.crf)

    def collate(self, rows: list[int]) -> Batched:
        padded = {
            name: pad_sequence([column[row] for row in rows], batch_first=True) for name, column in self.columns.items()
        }
        return {**padded, **self.spelling(rows, padded["words"].shape), "lengths": self.lengths[rows]}

    def spelling(self, rows: list[int], shape: torch.Size) -> Batched:
        words = [self.spelt[row] for row in rows]
        characters = torch.zeros(*shape, max(one.shape[1] for one in words), dtype=torch.int64)
        for place, one in enumerate(words):
            characters[place, : one.shape[0], : one.shape[1]] = one
        return {"characters": characters}

    def forward(self, tags: Tensor, **batch: Tensor) -> Tensor:
        likelihood: Tensor = self.crf(self.scores(**batch), tags, self.mask(**batch), reduction="token_mean")
        return -likelihood

    def predict(self, tags: Tensor, **batch: Tensor) -> Tensor:
        return torch.tensor([tag for row in self.crf.decode(self.scores(**batch), self.mask(**batch)) for tag in row])

    def scores(self, words: Tensor, places: Tensor, casing: Tensor, lengths: Tensor, **spelling: Tensor) -> Tensor:
        composed = self.composed(**spelling).view(*words.shape, -1)
        read = torch.cat([self.words(words), composed, self.vectors(places), self.casing(casing)], dim=2)
        scores: Tensor = self.linear(self.dropped_out(self.states(self.dropped_in(read), lengths)))
        return scores

    def mask(self, words: Tensor, lengths: Tensor, **others: Tensor) -> Tensor:
        return torch.arange(words.shape[1], device=words.device) < lengths.to(words.device)[:, None]

    def states(self, read: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(read, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    def composed(self, characters: Tensor) -> Tensor:
        return self.compose(characters.flatten(0, 1))

    def compose(self, characters: Tensor) -> Tensor:
        """Map (B * T, C) to (B * T, filters): each filter's maximum over the word's own characters."""
        read, padding = self.characters(characters).transpose(1, 2), (characters == 0)[:, None]
        found = [one(read)[..., -characters.shape[1] :].masked_fill(padding, -torch.inf) for one in self.convolutions]
        return torch.cat([one.amax(dim=2) for one in found], dim=1).tanh()


class StrongTagger(Tagger):
    """The same model, which composes each distinct word of a batch once, and runs its LSTMs over padded rows.

    The LSTM from right to left reads rows that are reversed within their own length.
    """

    def __init__(self, ours: Any, train: Batch) -> None:
        super().__init__(ours, train)
        spelled = ours.embedding.parts["chars"].spelled
        self.forms, self.of_rows = forms_of(spelled), rows_of(train.features[spelled.feature])
        self.form_lengths = (self.forms > 0).sum(dim=1)
        self.lstm = nn.ModuleList([lstm(*ours.encoder.forwards), lstm(*ours.encoder.backwards)])

    def spelling(self, rows: list[int], shape: torch.Size) -> Batched:
        forms = pad_sequence([self.of_rows[row] for row in rows], batch_first=True)
        distinct, places = torch.unique(forms, return_inverse=True)
        return {"characters": self.forms[distinct, : int(self.form_lengths[distinct].max())], "forms": places}

    def composed(self, characters: Tensor, forms: Tensor) -> Tensor:  # type: ignore[override]
        return self.compose(characters)[forms]

    def states(self, read: Tensor, lengths: Tensor) -> Tensor:
        places = torch.arange(read.shape[1], device=read.device)
        lengths = lengths.to(read.device)[:, None]
        reverse = torch.where(places < lengths, lengths - 1 - places, places)[:, :, None]
        forwards, backwards = self.lstm
        back = backwards(read.gather(1, reverse.expand_as(read)))[0]
        return torch.cat([forwards(read)[0], back.gather(1, reverse.expand_as(back))], dim=2)


def optimizer_of(peer: Any, rate: float, rate_of_vectors: float, fused: bool) -> torch.optim.Optimizer:
    """Return torch's Adam, with a rate of their own for the vectors (times `rate`).

    That rate also applies to vectors of words that the file lacks, unlike in Hydromel. If the rates differ
    (`tagger_wnut17`), first losses are equal and later ones drift apart (by 6 % after 15 updates without dropout).
    """
    vectors = peer.vectors.weight
    others = [one for one in peer.parameters() if one is not vectors]
    groups = [{"params": others}, {"params": [vectors], "lr": rate * rate_of_vectors}]
    return torch.optim.Adam(groups, lr=rate, fused=fused or None)


def trained_numbers(peer: Any) -> int:
    """Return the number of parameters, without the row for padded characters, which Hydromel does not need."""
    extra = peer.characters.embedding_dim if isinstance(peer, Tagger) else 0
    return sum(one.numel() for one in peer.parameters()) - extra


def rows_of(ids: Ragged) -> Column:
    return list(torch.split(ids.values.long(), ids.rows.host_lengths.tolist()))


def lengths_of(train: Batch) -> Tensor:
    return torch.from_numpy(train.rows.host_lengths)


def known_words(ours: Any, train: Batch) -> Column:
    ids = train.features[ours.feature]
    return rows_of(ids.map(lambda values: values.masked_fill(values >= ours.table.num_embeddings, ours.unk)))


def vector_rows(ours: Any, train: Batch) -> Column:
    """Return each token's row in one table of learned and pretrained vectors."""
    return rows_of(train.features[ours.feature].map(lambda values: F.embedding(values, ours.place)[..., 0]))


def spelt(ours: Any, train: Batch) -> Column:
    """Return the characters of each row's words, (length, longest word); 0 is padding."""
    forms, of_rows = spellings(ours), rows_of(train.features[ours.feature])
    return [pad_sequence([forms[form] for form in row], batch_first=True) for row in of_rows]


def spellings(ours: Any) -> Column:
    """Return the characters of each form of a word, beginning with 1."""
    starts = ours.spelling.offsets
    return list(torch.split(ours.symbols.long() + 1, (starts[1:] - starts[:-1]).tolist()))


def forms_of(ours: Any) -> Tensor:
    """Return the characters of all forms, (forms, longest); 0 is padding."""
    return pad_sequence(spellings(ours), batch_first=True)


def vector_table(ours: Any) -> nn.Embedding:
    table = torch.cat([ours.own.detach(), ours.rows.detach()])
    return nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)


def character_table(ours: nn.Embedding) -> nn.Embedding:
    table = torch.cat([torch.zeros(1, ours.embedding_dim), ours.weight.detach()])
    return nn.Embedding.from_pretrained(table, freeze=False, padding_idx=0)


def convolution(ours: Any) -> nn.Conv1d:
    """Return a convolution padded on both sides; for an even width its first output is superfluous."""
    theirs = ours.convolution
    made = nn.Conv1d(theirs.in_channels, theirs.out_channels, theirs.kernel_size, padding=theirs.kernel_size[0] // 2)
    made.load_state_dict(theirs.state_dict())
    return made


def lstm(forwards: Any, backwards: Any = None) -> nn.LSTM:
    """Return one layer, in one direction or in both."""
    theirs = forwards.cell
    made = nn.LSTM(theirs.input_size, theirs.hidden_size, batch_first=True, bidirectional=backwards is not None)
    back = {} if backwards is None else backwards.cell.state_dict()
    made.load_state_dict({**theirs.state_dict(), **{f"{name}_reverse": weight for name, weight in back.items()}})
    return made


def crf(ours: Any) -> CRF:
    made, chain = CRF(len(ours.start), batch_first=True), ours.chain("train")
    for theirs, own in (
        (made.start_transitions, chain.start),
        (made.transitions, chain.transitions),
        (made.end_transitions, chain.end),
    ):
        theirs.data.copy_(own.detach().clamp(min=FORBIDDEN))
    return made


def like(ours: Any) -> Any:
    """Return another `nn.Linear` or `nn.Embedding` with the same weights."""
    if isinstance(ours, nn.Embedding):
        return nn.Embedding.from_pretrained(ours.weight.detach().clone(), freeze=False, padding_idx=ours.padding_idx)
    made = nn.Linear(ours.in_features, ours.out_features)
    made.load_state_dict(ours.state_dict())
    return made


def dropouts(embedding: Any, read: Any) -> tuple[nn.Dropout, nn.Dropout]:
    """Return the dropout of token vectors, and that of the head's input."""
    return nn.Dropout(embedding.dropout.p), nn.Dropout(read.p)


def conv_classifier(ours: Any, train: Batch) -> ConvClassifier:
    return ConvClassifier(ours, train, None)


def conv_classifier_of_100(ours: Any, train: Batch) -> ConvClassifier:
    return ConvClassifier(ours, train, 100)
