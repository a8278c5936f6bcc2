"""A pretrained transformer whose attention cannot keep packed rows apart: it runs padded, with a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from runner.embeddings.pretrained_transformer.backbone import PieceModel, check_rows, input_table, positions_of
from runner.ragged.ragged import Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PaddedBackbone(PieceModel):
    """A model of transformers without its head and otherwise unchanged: DeBERTa, MPNet, Gemma 2, ...

    It pads packed rows itself. Its dropout is torch's own, which cannot be seeded by row.

    Raises:
        HydromelError: the model mixes the rows of a batch.
    """

    always_pads = True

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.kind = model.config.model_type
        self.size = model.config.hidden_size
        self.n_layers = model.config.num_hidden_layers
        self.vocabulary = model.get_input_embeddings().weight.shape[0]
        self.pad = model.config.pad_token_id or 0
        positions = positions_of(model)
        # models whose positions start after the id of padding have fewer
        self.max_pieces = None if positions is None else positions - 2
        self.n_segments = getattr(model.config, "type_vocab_size", 0)
        self.causal = check_rows(self, _single_row)

    def pieces_table(self) -> nn.Embedding:
        return input_table(self.model)

    def transformer(self) -> PreTrainedModel:
        return self.model

    @property
    def has_randomness(self) -> bool:
        """True unless `inner_dropout` is 0; some models drop weights of attention without a module for it."""
        modules = [*self.model.modules()]
        rates = [module.p for module in modules if isinstance(module, nn.Dropout)]
        rates += [rate for module in modules if isinstance(rate := getattr(module, "attention_dropout", None), float)]
        return any(rate > 0 for rate in rates)

    def forward(self, ids: Ragged, segments: Tensor | None, all_layers: bool) -> list[Ragged]:
        """Return vectors as `Backbone.forward` does."""
        padded = ids.pad(self.pad)
        given = {}
        if segments is not None and self.n_segments > 1:
            given["token_type_ids"] = segments if ids.layout == "padded" else ids.with_values(segments).pad().values
        output = self.model(
            input_ids=padded.values, attention_mask=padded.mask().long(), output_hidden_states=all_layers, **given
        )
        layers = output.hidden_states if all_layers else [output.last_hidden_state]
        vectors = [padded.with_values(layer) for layer in layers]
        return vectors if ids.layout == "padded" else [layer.pack() for layer in vectors]


def _single_row(backbone: PaddedBackbone, ids: Ragged) -> Tensor:
    vectors: Tensor = backbone.model(input_ids=ids.values[None]).last_hidden_state[0]
    return vectors
