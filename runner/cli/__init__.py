"""The commands, one module each: arguments in, one call, exit code out.

No package imports it. It may import all of `runner`, slow packages only when they are needed.
"""
