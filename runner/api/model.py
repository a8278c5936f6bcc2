"""A trained model: loaded from a run's folder or from MLflow, for prediction, generation and the audit."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.api.predictions import GeneratedTexts, PredictedRows
from runner.api.run import Run
from runner.common.errors import HydromelError

if TYPE_CHECKING:
    import pandas as pd

    from runner.audit.checks.verdict import AuditReport
    from runner.config.schema import Device, Dtype
    from runner.inference.generation.language_model import LanguageModel
    from runner.inference.rows import Rows
    from runner.inference.trained import Predictor, TrainedModel

BATCH_SIZE = 128  # rows per batch, as in `hydromel-predict`


def load(
    source: str | Path | Run,
    *,
    tracking_uri: str = "sqlite:///mlflow.db",
    device: Device = "auto",
    dtype: Dtype | None = None,
    plugins: Sequence[str] = (),
    data_dir: str | Path | None = None,
) -> Model:
    """Load the best checkpoint of a finished run, as `hydromel-predict` does.

    Args:
        source: a run, its folder, its id in MLflow, or the address of a logged model: `models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, `models:/ID` or `runs:/RUN_ID/model`. Code in a model is not run.
        tracking_uri: the store of MLflow, if the source is there.
        dtype: arithmetic; None: as in training.
        plugins: modules of your own that the run may use.
        data_dir: folder of the data set and of vector files; None: as in training.

    Raises:
        HydromelError: no such run or model, or one that is damaged or not allowed.
    """
    from runner.cli.run_arguments import load_from
    from runner.inference.trained import TrainedModel
    from runner.tracking.mlflow_download import folder_of

    given, data = str(source.folder if isinstance(source, Run) else source), None if data_dir is None else str(data_dir)
    downloads = Path(tempfile.mkdtemp(prefix="hydromel-"))
    folder = downloads
    try:
        folder = folder_of(given, tracking_uri, downloads)
        trained = load_from(folder, device, dtype, [*plugins], data, TrainedModel.load)
        model = Model(trained, folder, given, [*plugins])
    except BaseException:
        shutil.rmtree(downloads, ignore_errors=True)
        raise
    if folder == downloads:
        weakref.finalize(model, shutil.rmtree, downloads, ignore_errors=True)
    else:
        downloads.rmdir()
    return model


class Model:
    """A trained model.

    Attributes:
        folder: the run's folder, or a temporary one with the files from MLflow, which lives as long as this object.
        source: what it was loaded from.
    """

    def __init__(self, trained: TrainedModel, folder: Path, source: str, plugins: list[str]) -> None:
        self.folder, self.source = folder, source
        self._trained, self._plugins = trained, plugins

    @property
    def task(self) -> str:
        """The name of the task: classify, regress, tag or lm."""
        return self._trained.task.name

    @property
    def classes(self) -> list[str]:
        """The labels or tags that the model tells apart: the columns of `predict_proba`."""
        return [*self._predictor.classes]

    def predict(
        self, rows: Rows, *, probabilities: bool = False, spans: bool = False, batch_size: int = BATCH_SIZE
    ) -> PredictedRows:
        """Predict the labels or numbers of rows, or the tags of their tokens, as `hydromel-predict` does.

        Args:
            rows: texts, lists of tokens, pairs of either, mappings with the fields of `--format jsonl` (`text` or
                `tokens`, and further columns), or a data frame or Arrow table with such columns.
            probabilities: also keep the probability of each prediction.
            spans: also find the spans of tags, by characters of the text.
            batch_size: rows per batch; other rows of a batch change results only by rounding.

        Raises:
            HydromelError: the model generates text, or a row is malformed; rows are counted from 0.
        """
        from runner.inference.rows import table_of

        predictor = self._predictor
        if spans:
            predictor.check_spans()
        table = table_of(rows, predictor, offsets=spans)
        predictions = predictor.predict(table, _checked(batch_size))
        if not probabilities:
            predictions = replace(predictions, probability=None)
        return PredictedRows(table, predictor.with_spans(predictions, table) if spans else predictions)

    def predict_proba(self, rows: Rows, *, batch_size: int = BATCH_SIZE) -> pd.DataFrame:
        """Return the probability of every class: a row for each row of text, or for each token that gets a tag.

        The columns are `classes`. Those of a row sum to 1, unless the model predicts sets of labels. The index of tags
        has the levels `row` and `token`. `rows` are those of `predict`.

        Raises:
            HydromelError: the model predicts numbers or generates text, or a row is malformed.
        """
        import numpy as np
        import pandas as pd

        from runner.inference.rows import table_of

        predictor = self._predictor
        values, starts = predictor.probabilities(table_of(rows, predictor), _checked(batch_size))
        index = pd.RangeIndex(len(values))
        if predictor.inspector.column == "tags":
            lengths = np.diff(starts)
            tokens = np.arange(len(values)) - np.repeat(starts[:-1], lengths)
            index = pd.MultiIndex.from_arrays(
                [np.repeat(np.arange(len(lengths)), lengths), tokens], names=["row", "token"]
            )
        return pd.DataFrame(values, columns=self.classes, index=index)

    def generate(
        self, prompts: str | Sequence[str] = "", *, batch_size: int = 32, allow_unk: bool = False, **options: Any
    ) -> GeneratedTexts:
        """Continue prompts, by default with the likeliest token at each step, as `hydromel-generate` does.

        Args:
            prompts: one prompt or several.
            batch_size: texts per batch.
            allow_unk: allow `<unk>` to be generated.
            options: `max_tokens`, `temperature`, `top_k`, `top_p`, `samples`, `seed`, `beam`, `length_penalty`,
                `nbest`; see `runner.inference.generation.generate.GenerationOptions`.

        Raises:
            HydromelError: the model is no language model, options that are unknown or exclude each other, or a prompt
                that the model cannot read.
        """
        from runner.inference.generation.generate import OPTION_NAMES, GenerationOptions, generated
        from runner.inference.generation.language_model import LanguageModel

        if unknown := [name for name in options if name not in OPTION_NAMES]:
            raise HydromelError(f"generate: unknown option '{unknown[0]}'. Allowed: {', '.join(OPTION_NAMES)}")
        given = GenerationOptions(**options)
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        model: LanguageModel = LanguageModel(self._trained, self.source, allow_unk)
        return GeneratedTexts(texts, generated(model, texts, given, _checked(batch_size)))

    def audit(self, batching: str | None = None, *, rows: int = 20, longest: int = 60) -> AuditReport:
        """Check that the model's results do not depend on batching, as `hydromel-audit --run RUN` does.

        The data set of the run is read.

        Args:
            batching: names of strategies, such as `padmask,packed`; None: that of the run.
            rows: number of examples, at least 8.
            longest: maximum tokens of an example; longer ones are cut.

        Raises:
            HydromelError: the data set is not there, or no strategy fits.
        """
        from runner.audit.config_audit import AuditOptions, audit_config
        from runner.common.run_schema import BEST, CHECKPOINTS
        from runner.config.compose import compose_strategies, under
        from runner.config.saved import saved_run

        config = saved_run(self.folder, self._plugins)
        configs, left_out = [config], dict[str, str]()
        if batching is not None:
            strategies, left_out = compose_strategies([f"batching={batching}"], None)
            configs = [under(config, strategy) for strategy in strategies]
        options = AuditOptions(rows, longest, weights=self.folder / CHECKPOINTS / BEST)
        return audit_config(configs, left_out, options)

    @property
    def _predictor(self) -> Predictor:
        from runner.inference.trained import predictor_of

        return predictor_of(self._trained, self.source)

    def __repr__(self) -> str:
        return f"Model(task={self.task}, source={self.source!r})"


def _checked(batch_size: int) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise HydromelError(f"batch_size={batch_size!r} is not a whole number from 1")
    return batch_size
