"""The commands, a module each: arguments in, one call, an exit code out.

Nothing imports it. It imports everything else of `runner`, slow packages only when they are needed.
"""
