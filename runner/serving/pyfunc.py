"""The pyfunc of a run's model: a data frame in, a data frame of predictions out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from runner.common.errors import HydromelError

if TYPE_CHECKING:
    from runner.inference.generation.language_model import LanguageModel
    from runner.inference.trained import Predictor

BATCH_SIZE = 128  # rows per batch, as in `hydromel-predict`


class HydromelModel(PythonModel):
    """The model of a finished run, as MLflow calls it.

    The rows are those of `hydromel-predict --format jsonl`, and the columns of the answer the fields that it adds, with
    the same rounding. A language model continues the column `text`, as `hydromel-generate` does.

    The options of `mlflow.pyfunc.load_model(URI, model_config=...)` are `device`, `plugins` (modules that the run's
    config may name) and `data_dir` (folder of vector files).
    """

    _predictor: Predictor | None = None
    _language_model: LanguageModel | None = None

    def load_context(self, context: PythonModelContext) -> None:
        """Load the run that the model holds; its files are checked as those of any saved run.

        Raises:
            HydromelError: the files are damaged, or of another version.
        """
        # imports torch, which logging a model should not wait for
        from runner.cli.run_arguments import load_from
        from runner.inference.trained import TrainedModel, predictor_of
        from runner.interfaces import HasInspector

        config, folder = context.model_config or {}, Path(context.artifacts["run"])
        options = (config.get("device", "auto"), None, config.get("plugins", []), config.get("data_dir"))
        trained = load_from(folder, *options, TrainedModel.load)
        if isinstance(trained.task, HasInspector):
            self._predictor = predictor_of(trained, str(folder))
        else:
            from runner.inference.generation.language_model import LanguageModel

            self._language_model = LanguageModel(trained, str(folder), allow_unk=False)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the predictions of all rows.

        Raises:
            HydromelError: a row has no text, or a column that the run reads is missing.
        """
        if not len(model_input.columns):  # MLflow drops those that the model does not read, and the rows with them
            raise HydromelError("the input has none of the columns that this model reads; give text, or tokens")
        options = dict(params or {})
        if self._language_model is not None:
            return _continued(self._language_model, model_input, options)
        assert self._predictor is not None
        return _predicted(self._predictor, model_input, bool(options.get("probabilities")))


def _predicted(predictor: Predictor, rows: pd.DataFrame, probabilities: bool) -> pd.DataFrame:
    from runner.inference.rows import table_of
    from runner.text.formats.base import fields_of

    predictions = predictor.predict(table_of(rows, predictor), BATCH_SIZE)
    if not probabilities:
        predictions = replace(predictions, probability=None)
    return pd.DataFrame(fields_of(predictions, predictions.column))


def _continued(model: LanguageModel, rows: pd.DataFrame, options: Mapping[str, Any]) -> pd.DataFrame:
    from runner.inference.generation.generate import GenerationOptions, generated

    if "text" not in rows:
        raise HydromelError("the input has no column text, which this model continues")
    given = GenerationOptions(**{name: value for name, value in options.items() if value is not None})
    best = [texts[0] for texts in generated(model, rows["text"].tolist(), given, BATCH_SIZE)]
    return pd.DataFrame({"text": [text.text for text in best], "log_p": [text.log_p for text in best]})
