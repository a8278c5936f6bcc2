"""Load a pretrained model for packed rows, for padded rows or as a table, possibly with adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, NotRequired

from pydantic import ConfigDict, Field, with_config
from torch import nn
from typing_extensions import TypedDict  # pydantic cannot check that of `typing` before Python 3.12

from runner.common.errors import HydromelError
from runner.common.types import MOST, Fraction, PositiveFloat, PositiveInt, Text
from runner.compat.transformers import takes_attention_functions
from runner.embeddings.pretrained_transformer.attention import NAME, CannotAttendInRowsError, register
from runner.embeddings.pretrained_transformer.backbone import Backbone, PieceModel, check_scores
from runner.embeddings.pretrained_transformer.files import CONFIG, STATIC, PretrainedFiles, quiet
from runner.embeddings.pretrained_transformer.padded import PaddedBackbone
from runner.embeddings.pretrained_transformer.static import StaticTable

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@with_config(ConfigDict(extra="forbid"))
class Lora(TypedDict):
    """Low-rank adapters beside matrices: W x + (alpha / rank) B A x, of which A and B are trained (Hu et al. 2022)."""

    rank: PositiveInt
    alpha: NotRequired[PositiveFloat]  # default: twice the rank
    dropout: NotRequired[Fraction]  # of x; default: 0
    # ends of names of linear layers; None or not given: the choice of peft for this kind of model
    targets: NotRequired[Annotated[list[Text], Field(min_length=1)] | None]


@dataclass(frozen=True)
class Loaded:
    """A pretrained model, and the names of weights that its file lacks, or that are not used, by kind."""

    model: PieceModel
    not_fitting: dict[str, list[str]] = field(default_factory=dict)


def load_model(files: PretrainedFiles, dropout: float | None, lora: Lora | None, recompute: bool) -> Loaded:
    """Return the model of these files, with random weights if a checkpoint's are loaded later.

    Args:
        dropout: probability within the model; None: its own.
        lora: train adapters instead of the model's parameters.
        recompute: compute the values inside layers again in the backward pass instead of keeping them.
    """
    plain = files.read_config()
    if plain.get("model_type") == STATIC:
        if lora is not None or recompute or dropout is not None:
            raise HydromelError(
                f"embedding.path={files.source} is a table of vectors, without layers; use lora=null, recompute=false "
                "and inner_dropout=null"
            )
        return Loaded(_static(files, plain))
    return _load(files, dropout, lora, recompute, has_output=False)[0]


def load_language_model(
    files: PretrainedFiles, dropout: float | None, lora: Lora | None, recompute: bool
) -> tuple[Loaded, nn.Linear, PreTrainedModel]:
    """Return a causal model, its output layer, which may share its weights with the first layer, and both as one.

    The arguments are those of `load_model`.

    Raises:
        HydromelError: the model is no causal language model, its file lacks the output layer, or its scores are not
            those of the output layer.
    """
    loaded, whole = _load(files, dropout, lora, recompute, has_output=True)
    source, model = files.source, loaded.model
    if not model.causal:
        raise HydromelError(
            f"embedding.path={source}: {model.kind} reads later pieces too, so it cannot predict the next one; use a "
            "causal model such as GPT-2, Llama or Qwen3"
        )
    output = whole.get_output_embeddings()
    if not isinstance(output, nn.Linear):
        raise HydromelError(f"embedding.path={source}: {model.kind} has no linear output layer; use another model")
    names = [name for name, parameter in whole.named_parameters() if parameter in {*output.parameters()}]
    if lacking := [name for name in names if name in loaded.not_fitting.get("missing", ())]:
        raise HydromelError(
            f"embedding.path={source}: its file has no weights of the output layer ({lacking[0]}); give the folder of "
            "the whole language model, not of its body"
        )
    check_scores(model, whole, output)
    output.requires_grad_(lora is None)
    return loaded, output, whole


def _load(
    files: PretrainedFiles,
    dropout: float | None,
    lora: Lora | None,
    recompute: bool,
    has_output: bool,
) -> tuple[Loaded, PreTrainedModel]:
    """Return a model for rows, and the model of transformers, with its output layer if `has_output`."""
    register()
    whole, not_fitting = _load_whole(files, NAME, lora, recompute, has_output)
    if takes_attention_functions(whole):
        # models with additions to attention, such as Gemma 2's soft cap, also run padded
        with contextlib.suppress(CannotAttendInRowsError):
            return Loaded(Backbone(whole.base_model, dropout), not_fitting), whole
    whole, not_fitting = _load_whole(files, "eager", lora, recompute, has_output)
    for module in whole.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
        if dropout is not None and isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = dropout
    return Loaded(PaddedBackbone(whole.base_model), not_fitting), whole


def _load_whole(
    files: PretrainedFiles, attention: str, lora: Lora | None, recompute: bool, has_output: bool
) -> tuple[PreTrainedModel, dict[str, list[str]]]:
    """Return a model with an attention function, without its pooler, and the names of weights that do not fit it."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModel, AutoModelForCausalLM

    config = files.load_config()
    if has_output and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise HydromelError(
            f"embedding.path={files.source}: {config.model_type} is no causal language model; use one such as GPT-2, "
            "Llama or Qwen3"
        )
    auto = AutoModelForCausalLM if has_output else AutoModel
    if files.weights is not None:
        whole, not_fitting = files.load_weights(config, attention, auto)
    else:
        with quiet(), files.errors("configuration"):
            whole, not_fitting = auto.from_config(config, attn_implementation=attention), {}
    model = whole.base_model
    if not isinstance(model.get_input_embeddings(), nn.Embedding):
        raise HydromelError(f"embedding.path={files.source} is no model of text ({config.model_type})")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # its parameters would get no gradient
        not_fitting = {kind: [n for n in names if not n.startswith("pooler.")] for kind, names in not_fitting.items()}
    if lora is not None:
        _add_adapters(model, lora, files.source)
    if recompute:
        # transformers renamed this method
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return whole, not_fitting


def _static(files: PretrainedFiles, config: Mapping[str, object]) -> StaticTable:
    if files.weights is not None:
        return StaticTable.of(files.read_tensors(), files.source)
    n_pieces, size = config.get("vocab_size"), config.get("hidden_dim")
    if not (isinstance(n_pieces, int) and isinstance(size, int) and 0 < n_pieces <= MOST and 0 < size <= MOST):
        raise HydromelError(f"{files.folder / CONFIG}: vocab_size={n_pieces} and hidden_dim={size} must be positive")
    return StaticTable(n_pieces, size)


def _add_adapters(model: nn.Module, lora: Lora, source: str) -> None:
    if find_spec("peft") is None:
        raise HydromelError("embedding.lora needs peft; run pip install hydromel[pretrained]")
    from peft import LoraConfig, inject_adapter_in_model

    rank, targets = lora["rank"], lora.get("targets")
    options = LoraConfig(
        r=rank,
        lora_alpha=lora.get("alpha", 2 * rank),
        lora_dropout=lora.get("dropout", 0.0),
        target_modules=targets,
    )
    try:
        with quiet():  # of GPT-2, peft warns that it corrects an option by itself
            inject_adapter_in_model(options, model)
    except ValueError as error:
        linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, nn.Linear)}
        raise HydromelError(
            f"embedding.lora.targets={targets} does not fit {source}; its linear layers are {', '.join(sorted(linear))}"
        ) from error
