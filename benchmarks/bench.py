"""Measure the training speed of Hydromel, its peers and simple loops; one command makes the whole table.

    python benchmarks/bench.py --data DATA --results benchmarks/results

In each row several entrants do the same work: same model, data, rows per update, optimiser and clipping. They start
from the same weights, and must have the same loss on the same rows before anything is timed. Each has a process of its
own, and they take turns (`contest.py`).

Rates are real (non-padding) tokens/s, as medians over rounds with their range; a ratio is the median over rounds of the
ratio to the row's reference: the fastest peer, unless the row names another entrant. Bytes are the peak of a process,
or on a GPU of its allocator. On one CPU thread there is also a ratio by CPU time, which other processes on a busy
machine hardly affect.

Three rows are of another kind: `overhead` compares whole runs with a bare loop over the same batches, `crf` a CRF with
that of pytorch-crf, and `growth` shows time and memory by size of the corpus.

`--rows` measures only some rows; a file keeps the others. Peers that are not installed are left out, with a message. A
row whose data are missing is left out too, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from statistics import median
from typing import Any

import finetuning
import torch
import training_peers as peers
from bench_options import former, parsed
from bench_show import draw, show
from contest import Entrant, NotRunHere, Score, compete, ratios, stepping, summary
from training_runs import cost_of_run
from training_steps import MakePeer, grouped, hand_prediction_step, hand_step, our_prediction_step, our_step, shuffled
from word_lm_peer import example_step

from runner.common.errors import HydromelError, missing_kernel
from runner.common.files import write_text
from runner.tracking.provenance import cpu_name, git_commit

WARM_UP = 2  # rounds before the measured ones
SHUFFLED, CAREFUL, STRONG = "by hand, shuffled", "by hand, grouped", "by hand, strong"
TRAINER, EXAMPLE, STRONG_EXAMPLE = "transformers.Trainer, grouped", "PyTorch's example", "PyTorch's example, strong"
PADDED, GROUPED, REBALANCED = "HF shuffled", "HF grouped", "HF rebalanced"
STRATEGIES = ("size1", "bucketed", "padmask", "packed")
LM = {"as shipped": [], "bfloat16 scores": ["task.precision=bfloat16"]}  # options besides those of the experiment
OURS = {*STRATEGIES, *LM}
ByHand = tuple[MakePeer, MakePeer]  # a model as a careful user writes it, and as a strong one does


@dataclass(frozen=True)
class Row:
    """One row: a work, its entrants by name, and the ratio to the reference that an entrant should reach (`goals`).

    `reference` is an entrant, or None for the fastest that is not Hydromel. With `second`, there are also ratios to
    another entrant, with goals of their own.
    """

    name: str
    title: str
    reference: str | None
    entrants: dict[str, Entrant]
    goals: dict[str, float]
    updates: int  # updates per turn
    second: str | None = None
    second_goals: dict[str, float] = field(default_factory=dict)


def training_row(
    options: argparse.Namespace,
    work: str,
    title: str,
    by_hand: ByHand | None,
    batch_size: int,
    updates: int,
) -> Row:
    """Return a row with Hydromel under every strategy, and a peer written by hand in several ways.

    The careful model trains on shuffled rows, on rows grouped by length, and in a Trainer; the strong one on rows
    grouped by length, with fused Adam. Without a peer (None), `padmask` is the reference.
    """
    device = f"device={options.device}"
    size = f"batching.batch_size={batch_size}"
    ours = {name: stepping(our_step, work, options.data, device, f"batching={name}", size) for name in STRATEGIES}
    if by_hand is None:
        return Row(work, title, "padmask", ours, {}, updates)
    careful, strong = by_hand
    others = {
        SHUFFLED: stepping(hand_step, careful, shuffled, False, work, options.data, size, device),
        CAREFUL: stepping(hand_step, careful, grouped, False, work, options.data, size, device),
        STRONG: stepping(hand_step, strong, grouped, True, work, options.data, size, device),
    }
    if not work.startswith("tagger") and not missing():
        from training_trainer import trainer_work  # importing transformers takes seconds

        others[TRAINER] = Entrant(trainer_work, (careful, work, options.data, size, device))
    if work == "conv_sst2":
        others["by hand, padded to 100"] = stepping(
            hand_step, peers.conv_classifier_of_100, shuffled, False, work, options.data, size, device
        )
    return Row(work, title, None, others | ours, {"bucketed": 2.0}, updates, CAREFUL, {"bucketed": 2.5})


def prediction_row(options: argparse.Namespace, work: str, title: str, by_hand: ByHand) -> Row:
    """Return a row that predicts the validation set, with the options of the experiment."""
    careful, strong = by_hand
    device = f"device={options.device}"
    entrants = {
        CAREFUL: stepping(hand_prediction_step, careful, work, options.data, device),
        STRONG: stepping(hand_prediction_step, strong, work, options.data, device),
        "bucketed": stepping(our_prediction_step, work, options.data, device, "batching=bucketed"),
        "packed": stepping(our_prediction_step, work, options.data, device, "batching=packed"),
    }
    return Row(f"predict_{work}", f"Prediction: {title}", None, entrants, {"bucketed": 4.0}, 2)


def missing() -> list[str]:
    """Return the packages that a Trainer needs and that are not installed."""
    return [name for name in ("accelerate", "transformers") if find_spec(name) is None]


def finetuning_row(options: argparse.Namespace, work: str, title: str) -> Row:
    """Return a row that fine-tunes an encoder: Hydromel, and transformers with three orders of rows."""
    more = (f"device={options.device}", "batching.batch_size=32")
    theirs = {PADDED: finetuning.shuffled, GROUPED: finetuning.grouped, REBALANCED: finetuning.rebalanced}
    entrants = {
        name: stepping(finetuning.hugging_face_step, batches, work, options.data, *more)
        for name, batches in theirs.items()
    }
    entrants |= {
        name: stepping(finetuning.our_pieces_step, work, options.data, f"batching={name}", *more)
        for name in ("packed", "bucketed", "padmask")
    }
    sparse = stepping(finetuning.our_pieces_step, work, options.data, "batching=packed", "embedding.sparse=true", *more)
    entrants["packed, sparse table"] = sparse
    return Row(work, title, PADDED, entrants, {"packed": 1.7}, 8, GROUPED, {"packed": 0.95})


def finetuning_rows(options: argparse.Namespace) -> list[Row]:
    titles = {"minilm_sst2": "MiniLM, [CLS], SST-2", "minilm_wnut17": "MiniLM, first pieces, WNUT-17"}
    return [finetuning_row(options, work, title) for work, title in titles.items()]


def lm_row(options: argparse.Namespace, streams: int) -> Row:
    size, device = f"batching.batch_size={streams}", f"device={options.device}"
    entrants = {
        name: stepping(example_step, strong, options.data, options.device, streams)
        for name, strong in ((EXAMPLE, False), (STRONG_EXAMPLE, True))
    }
    entrants |= {name: stepping(our_step, "word_lm", options.data, size, device, *more) for name, more in LM.items()}
    title = f"Word LM of PyTorch's example, WikiText-2, {streams} streams"
    return Row(f"word_lm_{streams}", title, None, entrants, {"as shipped": 2.0}, 6)


def rows(options: argparse.Namespace) -> dict[str, Row]:
    """Return all rows that train on real data."""
    conv = peers.conv_classifier, peers.conv_classifier
    lstm = peers.LstmClassifier, peers.StrongLstmClassifier
    tagger = peers.Tagger, peers.StrongTagger
    found = [
        training_row(options, "tagger_wnut17", "Tagger CNN-BLSTM-CRF, WNUT-17", tagger, 20, 20),
        training_row(options, "tagger_ewt", "Tagger CNN-BLSTM-CRF, UD EWT", tagger, 32, 10),
        training_row(options, "conv_sst2", "Convolutions 3-4-5, SST-2", conv, 50, 25),
        training_row(options, "lstm_sst2", "LSTM, SST-2", lstm, 50, 25),
        training_row(options, "conv_newsgroups4", "Convolutions 3-4-5, newsgroups4", conv, 32, 12),
        training_row(options, "lstm_newsgroups4", "LSTM, newsgroups4", lstm, 32, 5),
        prediction_row(options, "tagger_wnut17", "tagger CNN-BLSTM-CRF, WNUT-17", tagger),
        prediction_row(options, "conv_sst2", "convolutions 3-4-5, SST-2", conv),
        prediction_row(options, "lstm_sst2", "LSTM, SST-2", lstm),
        lm_row(options, 20),
        lm_row(options, 64),
        *([] if finetuning.missing() else finetuning_rows(options)),
        training_row(options, "transformer_newsgroups4", "Transformer, newsgroups4 (to 1,024)", None, 32, 6),
        training_row(options, "tagger_twitter", "Tagger CNN-BLSTM-CRF, Twitter", None, 10, 20),
        training_row(options, "conv_trec", "Convolutions and characters, TREC", None, 50, 20),
        training_row(options, "conv_reviews", "Convolutions 3-4-5, movie reviews", None, 32, 8),
        training_row(options, "lm_lines", "LSTM language model, lines of WikiText-2", None, 32, 8),
    ]
    return {row.name: row for row in found}


def measure(options: argparse.Namespace, row: Row) -> dict[str, Any]:
    """Return the figures of a row."""
    load = os.getloadavg()[0]
    scores, not_run = compete(row.entrants, options.device, options.threads, WARM_UP, options.rounds, row.updates)
    if row.reference in not_run:
        raise NotRunHere(f"{row.reference}: {not_run[row.reference]}")
    name = row.reference or fastest_peer(scores)
    reference, second = scores[name], scores.get(row.second or "")
    return {
        "name": row.name,
        "title": row.title,
        "reference": name,
        "second": row.second,
        "updates_a_turn": row.updates,
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "entrants": [
            {
                "name": name,
                "ours": name in OURS,
                "goal": row.goals.get(name),
                **figures(score, reference, options.threads == 1 and options.device == "cpu"),
                "ratio_to_second": summary(ratios(score, second, "seconds")) if second else None,
                "second_goal": row.second_goals.get(name),
            }
            for name, score in scores.items()
        ],
        "not_run": not_run,
    }


def fastest_peer(scores: Mapping[str, Score]) -> str:
    """Return the name of the fastest entrant that is not Hydromel."""
    peers = [name for name in scores if name not in OURS]
    if not peers:
        raise NotRunHere("no peer runs")
    return max(peers, key=lambda name: median(scores[name].rates("seconds")))


def figures(score: Score, reference: Score, by_cpu_time: bool) -> dict[str, Any]:
    return {
        "real_tokens_per_s": summary(score.rates("seconds")),
        "ratio": summary(ratios(score, reference, "seconds")),
        "ratio_by_cpu_time": summary(ratios(score, reference, "cpu_seconds")) if by_cpu_time else None,
        "padding_share": score.padding_share(),
        "memory": score.memory,
        "kernels": score.kernels,
        "first_loss": score.first_loss,
        "last_loss": score.turns[-1].loss,
        "updates": score.updates,
    }


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Return tokens/s of whole runs and of bare loops over the same batches, 32 rows per update."""
    epochs = {"tagger_ewt": 1, "conv_sst2": 4, "lstm_sst2": 4}  # a few seconds of training each
    more = ("batching.batch_size=32", f"device={options.device}")
    found = [cost_of_run(work, n, options.data, options.threads, options.rounds, *more) for work, n in epochs.items()]
    if not finetuning.missing():
        limited = (*more, "batching=packed", "train.max_updates=50")
        found.append(cost_of_run("minilm_sst2", 1, options.data, options.threads, options.rounds, *limited))
    return {"goal_percent": 3.0, "works": found}


def crf(options: argparse.Namespace) -> dict[str, Any]:
    """Return how many times as fast as pytorch-crf the CRF is, by layout and kind of lengths."""
    from crf import BATCHES, OURS, TAGS, THEIRS, WIDTHS, Case
    from crf import measure as measure_case

    sizes = list(product(BATCHES, WIDTHS, TAGS))
    found = []
    for lengths in ("uneven", "equal"):
        cases = [measure_case(Case(*size, lengths, options.threads, "wall", options.device), 21) for size in sizes]
        for name in OURS:
            times = [case["times_as_fast"][name]["median"] for case in cases]
            largest = {which: cases[-1]["peak_bytes"][which] for which in (THEIRS, name)}
            found.append(
                {"lengths": lengths, "layout": name, "least": min(times), "median": median(times)}
                | {"peak_bytes_of_largest": largest}
            )
    return {"goal_least": 3.0, "goal_median": 5.0, "of": found}


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds and bytes as the corpus grows, on one thread."""
    from growth import in_a_fresh_process

    return {"sizes": [in_a_fresh_process(sentences) for sentences in options.sentences]}


APART = {"overhead": overhead, "crf": crf, "growth": growth}


def measure_apart(options: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return a row without entrants; raise NotRunHere if this machine lacks a kernel for it."""
    try:
        return APART[name](options)
    except RuntimeError as error:
        if missing := missing_kernel(error):
            raise NotRunHere(missing) from error
        raise


def main() -> None:
    options = parsed(__doc__, lambda options: [*rows(options), *APART])
    if missing():
        print(f"{TRAINER} is left out: install {', '.join(missing())}")
    if needed := finetuning.missing():
        print(f"fine-tuning is left out: install {', '.join(needed)}")
    try:
        found, left_out = measured(options)
    except KeyboardInterrupt:
        sys.exit("stopped" + (f"; the finished rows are in {options.json}" if options.json is not None else ""))
    if options.plot is not None and any("entrants" in row for row in found.values()):
        draw(found, options.plot)
    sys.exit(1 if left_out else 0)


def measured(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return the requested rows together with the others of the file, and the names of rows that failed."""
    table, found, left_out = rows(options), former(options.json), []
    for name in options.rows or [*table, *APART]:
        try:
            row = measure(options, table[name]) if name in table else measure_apart(options, name)
        except NotRunHere as missing:
            print(f"{name} is left out, since this machine cannot run it: {missing}", flush=True)
            continue
        except HydromelError as mistake:
            print(f"{name} is left out: {mistake}", flush=True)
            left_out.append(name)
            continue
        row |= {"circumstances": circumstances(options)}
        found |= former(options.json)  # another process may have written rows meanwhile
        found[name] = row
        show({name: row})
        if options.json is not None:  # after each row, so that finished rows are kept
            write_text(options.json, json.dumps(found, indent=1) + "\n")
    return found, left_out


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    """Return the circumstances under which a row was measured."""
    device = torch.cuda.get_device_name() if options.device == "cuda" else cpu_name()
    machine = {"device": device, "cores": os.cpu_count(), "threads": options.threads}
    return {"git_commit": git_commit(), "torch": torch.__version__, **machine, "rounds": options.rounds}


if __name__ == "__main__":
    main()
