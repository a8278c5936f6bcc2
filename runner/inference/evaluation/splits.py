"""The evaluation of a finished run on the splits of its own data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import torch

from runner.common.errors import HydromelError, unknown
from runner.components.run_components import build_strategy
from runner.config.saved import saved_node
from runner.config.schema import Dtype
from runner.data.counts import count_split, describe_counts
from runner.data.numericalize import TARGET, cut_split, with_unseen
from runner.data.pairs import arrange_texts
from runner.inference.evaluation.tally import Tally, line_sizes
from runner.inference.generation.language_model import NextToken, Text
from runner.inference.predictions import split_values
from runner.inference.trained import TrainedModel
from runner.interfaces import BatchingStrategy, HasLossTables, StreamStrategy
from runner.model import device_of, with_pieces
from runner.ragged.batch import Batch
from runner.ragged.ragged import Ragged
from runner.terminal.progress import track
from runner.training.evaluation import evaluate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitEvaluation:
    """An evaluation on splits as in training, in the strategy's own batches.

    Rows are cut to `max_length`, except for language models; what is cut off counts as missed.
    """

    trained: TrainedModel
    batching: BatchingStrategy

    @classmethod
    def load(
        cls, folder: Path, device: torch.device, dtype: Dtype | None, plugins: Sequence[str], data_dir: str | None
    ) -> SplitEvaluation:
        """Load the best checkpoint of the run in `folder`; arguments and errors are those of `TrainedModel.load`."""
        node = saved_node(folder, "batching", plugins)
        unchosen = f"{folder}: that run has not chosen a batching strategy yet; let it finish first"
        return cls(TrainedModel.load(folder, device, dtype, plugins, data_dir), build_strategy(node, plugins, unchosen))

    def reading(self, streams: int | None, window: int | None) -> SplitEvaluation:
        """Return the evaluation with other numbers of streams and of tokens per window; None: as in the run."""
        if streams is None and window is None:
            return self
        if not isinstance(self.batching, StreamStrategy):
            raise HydromelError(
                f"--streams and --window apply to runs that read a stream; this one reads rows "
                f"(batching={self.batching.name}), so leave them out"
            )
        return replace(self, batching=self.batching.with_streams(streams, window))

    def measure(self, name: str | None, batch_size: int) -> tuple[str, dict[str, object]]:
        """Return the name of a split, and its metrics and tables; a HydromelError if the data set has no such split.

        `name` None stands for test, or valid if there is no test split; `batch_size` counts rows.
        """
        corpus = self.trained.corpus
        tables = corpus.read()
        name = name or ("test" if "test" in tables else "valid")
        if name not in tables:
            raise unknown("split", name, tables, f"dataset={corpus.name}")
        if isinstance(self.trained.task, NextToken):
            return name, self._likelihood(tables, name, batch_size)
        run = self.trained
        # the files may have labels that they did not have when the run read them
        vocabs = {
            **run.vocabs,
            TARGET: with_unseen(run.task, run.vocabs[TARGET], {split: [table] for split, table in tables.items()}),
        }
        whole = run.task.encode(run.ids_of(tables[name]), tables[name], vocabs)
        split = cut_split(run.task, run.truncation, whole, is_trained_on=False)
        counts = {name: count_split(whole, split, vocabs[TARGET])}
        for line in describe_counts(counts, run.truncation):
            log.info(line)
        split = arrange_texts(split, run.task, run.vocabs)
        whole = with_pieces(run.model, split.to(device_of(run.model)))
        made = self.batching.evaluation_batches(whole, batch_size)
        batches = track(made, f"evaluating {name}", split.real_tokens, lambda batch: batch.real_tokens)
        return name, evaluate(run.model, run.measures.start(vocabs), batches, bf16=False)

    def _likelihood(self, tables: dict[str, pa.Table], name: str, batch_size: int) -> dict[str, object]:
        """Return a language model's metrics per token, word and character, and its tables."""
        run, task, vocabs = self.trained, self.trained.task, self.trained.vocabs
        train, split = run.truncation.apply(self._numericalize(tables["train"])), self._numericalize(tables[name])
        values = split_values(run.model, self.batching, split, batch_size, False, run.measures.input_kinds)
        of_tokens, vocab = values["losses"], vocabs[TARGET]
        assert isinstance(of_tokens, Ragged)
        losses = of_tokens.values.numpy()
        assert isinstance(task, NextToken)
        assert isinstance(split.target, Ragged)
        n_unknown = 0 if vocab.unk is None else int((split.target.values == vocab.unk).sum())
        column = tables[name][run.features[task.feature].column].combine_chunks()
        words, characters = (int(sizes.sum()) for sizes in line_sizes(column, Text.of(run.corpus, vocab).unit))
        figures = Tally(float(losses.sum()), len(losses), n_unknown, words, characters).figures()
        tables_of_losses = task.loss_tables(losses, split, train, vocabs) if isinstance(task, HasLossTables) else {}
        return run.measures.of_split(values, split, vocabs) | figures | tables_of_losses

    def _numericalize(self, table: pa.Table) -> Batch:
        run = self.trained
        return run.task.encode(run.ids_of(table), table, run.vocabs)
