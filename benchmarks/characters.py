"""Compose words from characters in three ways: each distinct form once, each token, or in a padded rectangle.

    python benchmarks/characters.py --data-dir DATA --json characters.json

Measures forward and backward passes of embedding=char_conv and char_rnn alone, over a tagger's training rows, on one
CPU thread, in CPU seconds. The three take turns, and the best of the repeats counts.

- `forms` is the runner's way: each distinct form of a batch once.
- `tokens` composes every token, without padding.
- `rectangle` is the usual way: (tokens, longest word) characters, padded, each token by itself; the end of words is
  masked, so all three give the same vectors (asserted).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from training_ours import data_of

from runner.config.compose import compose_config
from runner.config.instantiate import build
from runner.embeddings.char import CharacterTable, CharConv, CharRnn
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.rows import select_spans

BATCH_SIZES = (1, 10, 50, 200)


def composed_by_token(spelled: CharacterTable, ids: Ragged) -> tuple[Ragged, Tensor]:
    """Return the result of `CharacterTable` with one row per token."""
    forms = ids.on_host()
    starts, ends = spelled.spelling.offsets[forms], spelled.spelling.offsets[forms + 1]
    rows, places = select_spans(starts, ends - starts, ids.values.device)
    return Ragged(spelled.table(spelled.symbols[places]), rows, "packed"), torch.arange(len(forms))


def in_a_rectangle(spelled: CharacterTable, ids: Ragged) -> tuple[Ragged, Tensor]:
    characters, of_token = composed_by_token(spelled, ids)
    return characters.pad(), of_token


WAYS = {"forms": CharacterTable.forward, "tokens": composed_by_token, "rectangle": in_a_rectangle}


def one_epoch(module: CharConv | CharRnn, batches: list[Batch], way: str) -> tuple[float, Tensor]:
    """Return CPU seconds, and the vectors of the first batch."""
    first: Tensor | None = None
    module.spelled.forward = WAYS[way].__get__(module.spelled)  # type: ignore[method-assign]
    begin = time.process_time()
    for batch in batches:
        vectors = module(batch.features).values
        vectors.sum().backward()
        module.zero_grad()
        first = vectors.detach() if first is None else first
    assert first is not None
    return time.process_time() - begin, first


def measured(config: dict[str, Any], name: str, repeats: int) -> list[dict[str, Any]]:
    data = data_of(config)
    train = data.splits["train"]
    module = build(config["embedding"], "embedding", {"vocabs": data.vocabs})
    figures = []
    for size in BATCH_SIZES:
        order = np.random.default_rng(1).permutation(train.rows.n_rows)
        batches = [train.select(order[at : at + size]) for at in range(0, len(order), size)][: max(4, 600 // size)]
        tokens = sum(batch.real_tokens for batch in batches)
        distinct = sum(len(np.unique(batch.features["chars"].on_host())) for batch in batches)
        turns = [{way: one_epoch(module, batches, way) for way in WAYS} for _ in range(repeats)]
        for way in WAYS:
            torch.testing.assert_close(turns[0][way][1], turns[0]["forms"][1], rtol=1e-4, atol=1e-5)
        best = {f"{way}_tokens_per_s": tokens / min(turn[way][0] for turn in turns) for way in WAYS}
        figures.append(
            {"embedding": name, "batch_size": size, "tokens": tokens, "forms_share": distinct / tokens} | best
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="folder of published data sets (default: the built-in corpus)")
    parser.add_argument("--dataset", default="wnut17")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = [f"dataset={options.dataset}", f"data_dir={options.data_dir}"] if options.data_dir else []
    figures = []
    for name in ("char_conv", "char_rnn"):
        config = compose_config(["task=tag", f"embedding={name}", *given]).resolved
        figures += measured(config, name, options.repeats)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table("embedding", "rows a batch", "forms a token", *(f"{way}, tokens/s" for way in WAYS))
    for one in figures:
        speeds = (f"{one[f'{way}_tokens_per_s']:,.0f}" for way in WAYS)
        table.add_row(one["embedding"], str(one["batch_size"]), f"{one['forms_share']:.2f}", *speeds)
    Console().print(table)


if __name__ == "__main__":
    main()
