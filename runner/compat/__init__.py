"""Every use of a private API of another library, one module per library.

Each module names the version it was checked with. `tests/runner/compat` fails if a private name occurs elsewhere.
Any package may import it.
"""
