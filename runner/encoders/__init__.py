"""Encoders: token vectors -> token vectors, in their context; and the state that some carry from piece to piece.

Packages from training upwards may import it. It imports layers, no config and no batches.
"""
