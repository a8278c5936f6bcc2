"""What is audited: a run's model, a stream's, or any module, with their samples of batches.

The audit itself and its gallery may import it. It imports checks and tracing.
"""
