"""Models of finished runs in MLflow's servers and in `mlflow.pyfunc.load_model`; they answer as `hydromel-predict`.

No package imports it: MLflow does, by the code of a model. It may import inference and all below.
"""
