"""Suggestions for an unknown key: an option with a similar name, or one that other tools call by this name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from runner.common.errors import shortened
from runner.config.groups import names_by_group

# option or group -> its names in other tools
_OTHER_NAMES = {
    "encoder": "model arch architecture net network backbone",
    "optimizer": "optim",
    "schedule": "scheduler lr_scheduler",
    "batching": "strategy sampler batch",
    "tracker": "logger wandb mlflow tensorboard",
    "metric": "metrics",
    "data": "dataset_path data_path data_file train_file train_path train_data corpus file path",
    "hydra.run.dir": "output_dir out_dir output save_dir log_dir",
    "device": "gpu gpus cuda accelerator",
    "precision": "fp16 bf16 amp mixed_precision",
    "threads": "num_threads num_workers workers",
    "max_length": "max_len max_seq_len max_seq_length",
    "init_from": "checkpoint ckpt ckpt_path pretrained",
    "batching.batch_size": "bs train_batch_size per_device_train_batch_size minibatch_size",
    "batching.micro_batch": "accumulate_grad_batches gradient_accumulation_steps",
    "optimizer.lr": "learning_rate alpha",
    "train.epochs": "num_epochs n_epochs max_epochs num_train_epochs",
    "train.max_updates": "steps max_steps num_steps iterations",
    "train.clip_norm": "clip grad_clip max_grad_norm gradient_clip_val",
    "train.patience": "early_stopping",
    "embedding.size": "embedding_dim embedding_size embed_dim emb_dim emb_size",
    "encoder.hidden": "hidden_size hidden_dim hidden_units d_model",
    "encoder.layers": "num_layers n_layers",
    "features.words.max_size": "vocab_size max_vocab max_vocab_size",
    "features.words.min_count": "min_freq",
}
_OUTSIDE = ("data", "hydra.run.dir")  # keys that can be given, although the config itself lacks them
_MOST = 3  # most suggestions in a message
_CLOSE = 0.7  # least similarity, 0 to 1, of an option of another section


def suggestion(key: str, value: str, siblings: Iterable[str], config: Mapping[str, object]) -> str:
    """Return `; did you mean batching.batch_size=16?` for `batch_size=16`.

    It is empty if no other option is close, or if one of the same section is: the message then lists that section.

    Args:
        key: the full key that the config does not have.
        value: the value that was given for it; empty if unknown.
        siblings: the options of the same section.
        config: the composed config.
    """
    options = dict(_options(config))
    name = key.rpartition(".")[2].lower().replace("-", "_")
    groups = names_by_group()
    meant = [option for option in _nearest(options, name, value) if option.partition("=")[0] != key]
    if not meant:
        meant = [option for option, words in _OTHER_NAMES.items() if name in words.split()]
        meant = [_with_name(option, value, groups) for option in meant if option in (*options, *groups, *_OUTSIDE)]
    if not meant:
        beside = [*siblings, *([] if "." in key else groups)]
        (closest,) = difflib.get_close_matches(name, {*beside, *options.values()}, n=1, cutoff=_CLOSE) or [""]
        if closest in beside:
            return ""
        meant = _nearest(options, closest, value)
    if not meant and value and "." not in key:
        meant = [f"{group}={value}" for group, names in groups.items() if value in names]
    return f"; did you mean {' or '.join(map(shortened, meant[:_MOST]))}?" if meant else ""


def _options(config: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the full key and the name of each option, also of sections."""
    for key, value in config.items():
        if not str(key).startswith("_") and (above or key not in ("hydra", "choices", "search")):
            yield f"{above}{key}", str(key)
            if isinstance(value, Mapping):
                yield from _options(value, f"{above}{key}.")


def _nearest(options: Mapping[str, str], name: str, value: str) -> list[str]:
    """Return the options of this name that are nearest to the top level, with the value."""
    found = [option for option, own in options.items() if own == name]
    least = min((option.count(".") for option in found), default=0)
    return [f"{option}={value}" if value else option for option in found if option.count(".") == least]


def _with_name(option: str, value: str, groups: Mapping[str, list[str]]) -> str:
    """Return an option, or for a group `encoder=lstm`, or `encoder=NAME` if it has no config of this name."""
    if option not in groups:
        return "data=FILE" if option == "data" else option
    return f"{option}={value}" if value in groups[option] else f"{option}=NAME"
