"""Running and tracing a model: forward passes with all values, interventions, alignment, modes and precision.

The other packages of `runner.audit` may import it, and nothing else may.
"""
