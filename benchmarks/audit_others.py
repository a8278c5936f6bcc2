"""Audit modules of other libraries: torch, pytorch-crf and Hugging Face transformers.

    python benchmarks/audit_others.py [--json FILE]

Weights are random and nothing is downloaded. pytorch-crf and transformers are audited if they are installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from runner.audit import AuditReport, Padding, audit_module
from runner.audit.checks.kinds import ERROR, NOT_FINITE
from runner.audit.checks.verdict import Verdict, faults
from runner.audit.subjects.module import Collate

LENGTHS = (5, 3, 1, 7, 3, 2, 9, 5)
SIZE, IDS = 8, 40
MODULES = {"pytorch-crf": "torchcrf"}


@dataclass(frozen=True)
class Case:
    """A module in a common use.

    Attributes:
        module: name of the module.
        use: description of the use.
        make: makes the module, whose forward takes (padded, mask) or keyword arguments.
        empty: the examples include one without tokens.
        ids: examples are ids, not vectors.
        left: padding comes before the tokens.
        frozen: parameters get no gradient.
        split_output: output, lengths -> one tensor for each example.
        collate: examples, `Padding` -> arguments; None: padded, with a mask.
    """

    module: str
    use: str
    make: Callable[[], nn.Module]
    empty: bool = False
    ids: bool = False
    left: bool = False
    frozen: bool = False
    split_output: Callable[[Any, Sequence[int]], Sequence[Tensor]] | None = None
    collate: Collate[Tensor] | None = None

    def audit(self) -> AuditReport:
        torch.manual_seed(0)
        module = self.make().requires_grad_(not self.frozen)
        lengths = (*LENGTHS, 0) if self.empty else LENGTHS
        rows = [torch.randint(1, IDS, (n,)) if self.ids else torch.randn(n, SIZE) for n in lengths]
        return audit_module(
            module,
            rows,
            self.collate or _collate,
            left_padding=self.left,
            split_output=self.split_output,
            name=f"{self.module}, {self.use}",
        )


class Vectors(nn.Module):
    """The last layer of a model of transformers, called by name."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, **batch: object) -> Tensor:
        vectors: Tensor = self.inner(**batch).last_hidden_state
        return vectors


class Use(nn.Module):
    """A module `inner` that is called by the function `call`."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        return self.call(self.inner, x, mask)


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE")
    options = made.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| Module | Use | eval | train | Finding |\n| --- | --- | --- | --- | --- |")
    for case in cases():
        started = time.perf_counter()
        rows.append(table_row(case, case.audit()) | {"seconds": time.perf_counter() - started})
        print("| " + " | ".join(str(rows[-1][key]) for key in ("module", "use", "eval", "train", "found")) + " |")
    if options.json:
        names = [name for name in ("torch", "pytorch-crf", "transformers") if find_spec(MODULES.get(name, name))]
        versions = {name: version(name) for name in names}
        options.json.write_text(json.dumps({"versions": versions, "modules": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


def table_row(case: Case, report: AuditReport) -> dict[str, str]:
    """Return a row of the table."""
    marks = {mode: mark([one for one in report.failures() if one.mode == mode]) for mode in ("eval", "train")}
    found = "; ".join(
        f"{one.finding.kind} at `{one.finding.module}` ({', '.join(one.checks)})" for one in faults(report.failures())
    )
    return {"module": case.module, "use": case.use, **marks, "found": found or "nothing"}


def mark(failed: Sequence[Verdict]) -> str:
    """Return a word for the result of one mode."""
    beyond = [one.finding.kind for one in failed if one.check != "nan" and one.finding]
    if not beyond:
        return "passes but for NaN" if failed else "passes"
    return "raises" if set(beyond) == {ERROR} else "not finite" if set(beyond) <= {ERROR, NOT_FINITE} else "leaks"


def cases() -> Iterator[Case]:
    """Yield all cases whose libraries are installed."""
    yield from _recurrent()
    yield from _attention()
    yield from _others()
    if find_spec("torchcrf"):
        yield from _crf()
    if find_spec("transformers"):
        yield from _hugging_face()


def _collate(rows: Sequence[Tensor], padding: Padding) -> tuple[Tensor, Tensor]:
    return padding.stack(rows), padding.mask([len(row) for row in rows])


def _recurrent() -> Iterator[Case]:
    def lstm(bidirectional: bool, call: Callable[[Any, Tensor, Tensor], Any]) -> Callable[[], nn.Module]:
        return lambda: Use(nn.LSTM(SIZE, 4, batch_first=True, bidirectional=bidirectional), call)

    def packed(inner: Any, x: Tensor, mask: Tensor) -> Any:
        rows = pack_padded_sequence(x, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(inner(rows)[0], batch_first=True, total_length=x.shape[1])[0]

    yield Case("`nn.LSTM`", "forward, padded, outputs", lstm(False, lambda inner, x, mask: inner(x)[0]))
    yield Case("`nn.LSTM`", "forward, padded, last state", lstm(False, lambda inner, x, mask: inner(x)[1][0][-1]))
    yield Case("`nn.LSTM`", "bidirectional, padded, no lengths", lstm(True, lambda inner, x, mask: inner(x)[0]))
    yield Case("`nn.LSTM`", "bidirectional, `pack_padded_sequence`", lstm(True, packed))
    yield Case("`nn.LSTM`", "the same, with a row without tokens", lstm(True, packed), empty=True)


def _attention() -> Iterator[Case]:
    def attention(call: Callable[[Any, Tensor, Tensor], Any]) -> Callable[[], nn.Module]:
        return lambda: Use(nn.MultiheadAttention(SIZE, 2, batch_first=True), call)

    def masked(inner: Any, x: Tensor, mask: Tensor) -> Any:
        return inner(x, x, x, key_padding_mask=~mask, need_weights=False)[0]

    def encoder(nested: bool) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            layer = nn.TransformerEncoderLayer(SIZE, 2, 16, dropout=0.1, batch_first=True)
            stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
            return Use(stack, lambda inner, x, mask: inner(x, src_key_padding_mask=~mask))

        return make

    def unmasked() -> nn.Module:
        layer = nn.TransformerEncoderLayer(SIZE, 2, 16, dropout=0.1, batch_first=True)
        return Use(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), lambda inner, x, mask: inner(x))

    name = "`nn.MultiheadAttention`"
    plain = attention(lambda inner, x, mask: inner(x, x, x, need_weights=False)[0])
    yield Case(name, "no mask", plain)
    yield Case(name, "`key_padding_mask`", attention(masked))
    yield Case(name, "the same, with a row without tokens", attention(masked), empty=True)
    name = "`nn.TransformerEncoder`"
    yield Case(name, "no mask", unmasked)
    yield Case(name, "`src_key_padding_mask`, slow path", encoder(nested=False))
    yield Case(name, "the same, fast path (frozen)", encoder(nested=False), frozen=True)
    yield Case(name, "the same, fast path, nested tensors", encoder(nested=True), frozen=True, split_output=_cut)
    yield Case(name, "slow path, a row without tokens", encoder(nested=False), empty=True)
    yield Case(name, "fast path, a row without tokens", encoder(nested=False), frozen=True, empty=True)
    yield Case(
        name, "nested tensors, a row without tokens", encoder(nested=True), frozen=True, empty=True, split_output=_cut
    )


def _others() -> Iterator[Case]:
    def channels(inner: nn.Module) -> Callable[[], nn.Module]:
        return lambda: Use(inner, lambda inner, x, mask: inner(x.transpose(1, 2)).transpose(1, 2))

    yield Case("`nn.BatchNorm1d`", "over padded `(B, C, T)`", channels(nn.BatchNorm1d(SIZE)), empty=True)
    yield Case("`nn.Conv1d`", "width 3, padding not zeroed", channels(nn.Conv1d(SIZE, 4, 3, padding=1)), empty=True)
    yield Case("`nn.LayerNorm`", "over each token", lambda: Use(nn.LayerNorm(SIZE), lambda n, x, m: n(x)), empty=True)


def _crf() -> Iterator[Case]:
    from torchcrf import CRF

    def likelihood(inner: Any, x: Tensor, mask: Tensor) -> Tensor:
        tags = torch.zeros(x.shape[:2], dtype=torch.int64)
        found: Tensor = inner(x, tags, mask=mask, reduction="none")
        return found

    yield Case("pytorch-crf", "log-likelihood with mask", lambda: Use(CRF(SIZE, batch_first=True), likelihood))
    yield Case(
        "pytorch-crf", "the same, with a row without tokens", lambda: Use(CRF(SIZE, batch_first=True), likelihood), True
    )


def _hugging_face() -> Iterator[Case]:
    import transformers as hf

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    bert = hf.BertConfig(vocab_size=IDS, max_position_embeddings=64, **small)
    roberta = hf.RobertaConfig(vocab_size=IDS, max_position_embeddings=64, pad_token_id=0, **small)
    gpt2 = hf.GPT2Config(vocab_size=IDS, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    t5 = hf.T5Config(vocab_size=IDS, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)

    def use(make: Callable[[], nn.Module], masked: bool) -> Callable[[], nn.Module]:
        def call(inner: Any, ids: Tensor, mask: Tensor) -> Any:
            return inner(input_ids=ids, attention_mask=mask.long() if masked else None).last_hidden_state

        return lambda: Use(make(), call)

    def counted(inner: Any, ids: Tensor, mask: Tensor) -> Any:
        places = (mask.long().cumsum(1) - 1).clamp(min=0)
        return inner(input_ids=ids, attention_mask=mask.long(), position_ids=places).last_hidden_state

    def eager(config: Any, model: Any) -> Callable[[], nn.Module]:
        return lambda: model._from_config(config, attn_implementation="eager")

    yield Case("`BertModel`", "no `attention_mask`", use(lambda: hf.BertModel(bert), False), ids=True)
    yield Case("`BertModel`", "`attention_mask`", use(lambda: hf.BertModel(bert), True), ids=True)
    yield Case("`BertModel`", "the same, eager attention", use(eager(bert, hf.BertModel), True), ids=True)
    yield Case(
        "`BertModel`", "the same, a row without tokens", use(lambda: hf.BertModel(bert), True), ids=True, empty=True
    )
    yield Case("`RobertaModel`", "`attention_mask`", use(lambda: hf.RobertaModel(roberta), True), ids=True)
    yield Case("`T5EncoderModel`", "`attention_mask`", use(lambda: hf.T5EncoderModel(t5), True), ids=True)
    yield Case("`GPT2Model`", "`attention_mask`, padded right", use(lambda: hf.GPT2Model(gpt2), True), ids=True)
    left = use(lambda: hf.GPT2Model(gpt2), True)
    yield Case("`GPT2Model`", "`attention_mask`, padded left", left, ids=True, left=True)
    yield Case("`GPT2Model`", "and `position_ids`", lambda: Use(hf.GPT2Model(gpt2), counted), ids=True, left=True)
    yield from _flattened()


def _flattened() -> Iterator[Case]:
    """Yield the use of models without padding: all rows are one, (1, N), and their positions restart."""
    import transformers as hf

    small = {"vocab_size": IDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    bert = hf.BertConfig(intermediate_size=32, **small)
    modern = hf.ModernBertConfig(intermediate_size=32, **small, **special)
    llama = hf.LlamaConfig(intermediate_size=32, **small, **special)
    gpt2 = hf.GPT2Config(vocab_size=IDS, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)

    def case(model: Any, config: Any, use: str, attention: str = "sdpa", offsets: bool = False, **given: bool) -> Case:
        collator = hf.DataCollatorWithFlattening(return_flash_attn_kwargs=offsets)

        def collate(rows: Sequence[Tensor], padding: Padding) -> dict[str, object]:
            batch = collator([{"input_ids": row.tolist()} for row in rows])
            return {name: value for name, value in batch.items() if name != "labels"} | given

        def make() -> nn.Module:
            return Vectors(model._from_config(config, attn_implementation=attention))

        return Case(f"`{model.__name__}`", use, make, ids=True, collate=collate)

    flat = "`DataCollatorWithFlattening`"
    yield case(hf.BertModel, bert, flat)
    yield case(hf.BertModel, bert, "the same, eager attention", "eager")
    yield case(hf.BertModel, bert, "the same, `return_flash_attn_kwargs=True`", offsets=True)
    yield case(hf.ModernBertModel, modern, flat)
    yield case(hf.GPT2Model, gpt2, flat)
    yield case(hf.GPT2Model, gpt2, "and `use_cache=False`", use_cache=False)
    yield case(hf.GPT2Model, gpt2, "and `use_cache=False`, eager attention", "eager", use_cache=False)
    yield case(hf.LlamaModel, llama, flat)
    yield case(hf.LlamaModel, llama, "and `use_cache=False`", use_cache=False)


def _cut(output: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Split nested tensors, which are returned only as wide as the longest row."""
    return [row[:length] for row, length in zip(output, lengths, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
