"""Text as integers: vocabularies, features of tokens, byte pair encoding, characters, and steps on Arrow columns.

Packages that read or describe text may import it. It imports only `runner.common`.
"""
