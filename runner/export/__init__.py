"""Trained models as files for other programs: traced, written as ONNX or by torch, and compared with the run.

Commands may import it. It imports trained models (`runner.inference`), no tasks and no training.
"""
