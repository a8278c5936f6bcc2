"""The contact of a command with its user: messages, tables, bars of progress, arguments, interruption.

Every package but `runner.common` may import it, including `reporting`.
"""
