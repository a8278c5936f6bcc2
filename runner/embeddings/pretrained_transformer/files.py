"""Find and load a pretrained transformer: a folder, an installed package or a model of the Hugging Face Hub.

Files that hold code are never run: weights are safetensors, and `trust_remote_code` is off.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from runner.common.bounded import read_bytes
from runner.common.errors import HydromelError, quoted, shortened
from runner.common.records import parse

if TYPE_CHECKING:
    from transformers import (
        AutoModel,
        AutoModelForCausalLM,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerFast,
    )

CONFIG, WEIGHTS = "config.json", "*.safetensors"
STATIC = "model2vec"  # `model_type` of a table of vectors
# The files of a tokenizer, in the formats of different families.
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)
_VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")  # at least one of them is needed
# Largest sizes of a model: a damaged configuration must not take all memory, or all time.
_LARGEST = {
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 2**12,
    "vocab_size": 2**24,
    "max_position_embeddings": 2**24,
}
_CONFIG = TypeAdapter(dict[str, object])
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True)
class PretrainedFiles:
    """The folder of a pretrained transformer."""

    folder: Path
    source: str  # the option's value, for messages and records
    weights: Path | None  # folder of the weights; None: they are those of a checkpoint

    def read_config(self) -> Mapping[str, object]:
        """Return the content of `config.json`.

        Raises:
            HydromelError: the file is missing or is not a JSON object.
        """
        path = self.folder / CONFIG
        return parse(_CONFIG, read_bytes(path), str(path))

    def read_tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the file of weights.

        Raises:
            HydromelError: there is no such file or more than one, or it is damaged.
        """
        paths = sorted(self._weights().glob(WEIGHTS))
        if not paths:
            raise self._no_weights()
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            raise HydromelError(f"embedding.path={self.source}: a table has one file of weights, but there are {names}")
        with self.errors("weights"):
            return load_file(paths[0])

    def load_config(self) -> PretrainedConfig:
        """Return the configuration of an encoder or a decoder; raise a HydromelError for any other model."""
        from transformers import AutoConfig

        with quiet(), self.errors("configuration"):
            config = AutoConfig.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)
        if config.is_encoder_decoder:
            raise HydromelError(
                f"embedding.path={self.source} is an encoder-decoder ({config.model_type}); use an encoder such as "
                "BERT or ModernBERT, or a decoder such as GPT-2 or Qwen3"
            )
        if not isinstance(getattr(config, "vocab_size", None), int):
            raise HydromelError(f"embedding.path={self.source} is no model of text ({config.model_type})")
        for name, most in _LARGEST.items():
            value = getattr(config, name, None)
            if value is not None and not (isinstance(value, int) and 1 <= value <= most):
                raise HydromelError(
                    f"embedding.path={self.source}: {CONFIG} has {name}={quoted(value)}; it must be from 1 to {most:,}"
                )
        return config

    def load_tokenizer(self, add_space: bool) -> PreTrainedTokenizerFast:
        """Return the tokenizer; with `add_space` it splits each word as if a space preceded it."""
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        # without these files, transformers would make a tokenizer that knows no word
        if not any(any(self.folder.glob(name)) for name in _VOCABULARY):
            raise HydromelError(f"embedding.path={self.source}: {self.folder} has no tokenizer (tokenizer.json)")
        is_table = self.read_config().get("model_type") == STATIC
        load = PreTrainedTokenizerFast.from_pretrained if is_table else AutoTokenizer.from_pretrained
        options = {"add_prefix_space": True} if add_space else {}
        with quiet(), self.errors("tokenizer"):
            tokenizer = load(self.folder, local_files_only=True, trust_remote_code=False, **options)
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise HydromelError(f"embedding.path={self.source}: its tokenizer has no file tokenizer.json; convert it")
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
        return tokenizer

    def load_weights(
        self, config: PretrainedConfig, attention: str, auto: type[AutoModel | AutoModelForCausalLM]
    ) -> tuple[PreTrainedModel, dict[str, list[str]]]:
        """Return the model that `auto` makes, and the names of weights that are `missing` or `unexpected`."""
        folder = self._weights()
        if not any(folder.glob(WEIGHTS)):
            raise self._no_weights()
        with quiet(), self.errors("weights"):
            model, info = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the names are known
            )
        mismatched = [str(name) for name, *_ in info["mismatched_keys"]]
        if mismatched:
            raise HydromelError(
                f"embedding.path={self.source}: the weights do not fit {CONFIG}; {len(mismatched)} have another shape, "
                f"such as {mismatched[0]}"
            )
        if not {name for name, _ in model.named_parameters()} - set(info["missing_keys"]):
            raise HydromelError(
                f"embedding.path={self.source}: none of its weights are those of a model of type {config.model_type}, "
                f"which {CONFIG} names"
            )
        return model, {
            "missing": sorted(map(str, info["missing_keys"])),
            "unexpected": sorted(map(str, info["unexpected_keys"])),
        }

    def _weights(self) -> Path:
        assert self.weights is not None
        return self.weights

    def _no_weights(self) -> HydromelError:
        folder = self._weights()
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        more = f"; {pickled[0]} can hold code and is not read, convert it" if pickled else ""
        return HydromelError(
            f"embedding.path={self.source}: {folder} has no weights in the safetensors format (*.safetensors)" + more
        )

    @contextlib.contextmanager
    def errors(self, part: str) -> Iterator[None]:
        """Turn any error of transformers, which does not document their classes, into one line."""
        try:
            yield
        except HydromelError:
            raise
        except Exception as error:
            reason = shortened(" ".join(str(error).split()).partition(". ")[0], 300)
            raise HydromelError(f"embedding.path={self.source}: its {part} cannot be loaded ({reason})") from error


def find_files(path: str, revision: str | None, data_dir: str | None) -> PretrainedFiles:
    """Return the files of `path`: a folder (also relative to `data_dir`), an installed package, or an id of the Hub.

    Args:
        revision: commit, branch or tag on the Hub; null: the newest. It must be null unless `path` is an id of the Hub.

    Raises:
        HydromelError: `path` is none of these, or has no `config.json`.
    """
    require_transformers()
    folder = Path(path).expanduser()
    if data_dir is not None and not folder.is_dir() and (Path(data_dir).expanduser() / folder).is_dir():
        folder = Path(data_dir).expanduser() / folder
    if not folder.is_dir() and (package := _package_folder(path)) is not None:
        folder = package
    if folder.is_dir():
        if revision is not None:
            raise HydromelError(f"embedding.revision={revision} is for models of the Hub; {folder} is a folder")
        if not (folder / CONFIG).is_file():
            raise HydromelError(f"embedding.path={path}: {folder} has no {CONFIG}; give the folder of a saved model")
        return PretrainedFiles(folder, path, folder)
    if folder.is_file():
        raise HydromelError(f"embedding.path={path} is a file; give the folder of a saved model")
    if not _HUB_ID.fullmatch(path):
        raise HydromelError(f"embedding.path={path}: there is no such folder")
    downloaded = _download(path, revision)
    return PretrainedFiles(downloaded, path, downloaded)


def require_transformers() -> None:
    """Raise a HydromelError unless transformers can be imported."""
    if find_spec("transformers") is None:
        raise HydromelError("embedding=pretrained needs transformers; run pip install hydromel[pretrained]")


def _package_folder(name: str) -> Path | None:
    """Return the folder with a model's configuration in an installed package, which is not imported."""
    module = name.replace("-", "_")  # as pip writes names
    if not module.isidentifier() or (spec := find_spec(module)) is None:
        return None
    for place in spec.submodule_search_locations or ():
        for config in sorted(Path(place).rglob(CONFIG)):
            if any(config.parent.glob(WEIGHTS)):
                return config.parent
    return None


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with quiet():
            return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, *TOKENIZER, WEIGHTS]))
    except Exception as error:  # the library and its connection raise errors of many classes
        while isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # it is not on this machine, since the Hub was not reached
        reason = shortened(" ".join(str(error).split()).partition(". ")[0], 120)
        raise HydromelError(
            f"embedding.path={name}: there is no folder or installed package of this name, and the Hugging Face Hub "
            f"did not give it ({reason})"
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars, reports and warnings of transformers; our own records have what matters."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, had_bars, hub_had_bars = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        not are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if had_bars:
            logging.enable_progress_bar()
        if hub_had_bars:
            enable_progress_bars()
