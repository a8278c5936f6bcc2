"""The code of every model that a run logs to MLflow ("models from code"): MLflow copies this file into the model."""

from mlflow.models import set_model

from runner.serving.pyfunc import HydromelModel

set_model(HydromelModel())
