"""Text as integers: vocabularies, token features, byte pair encoding, characters, and helpers for Arrow columns.

Packages that read or describe text may import it. It imports only `runner.common`.
"""
