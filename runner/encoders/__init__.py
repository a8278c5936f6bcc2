"""Encoders: token vectors -> token vectors in context, and the state that some carry from one window to the next.

Packages from training upwards may import it. It imports layers, no config and no batches.
"""
