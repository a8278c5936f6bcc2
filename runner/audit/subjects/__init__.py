"""The subjects of an audit: a configured model, a model over streams, or any module, with their sample of examples.

The audit itself and its gallery may import it. It imports checks and tracing.
"""
