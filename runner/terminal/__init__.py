"""What a command shows and how it is called: messages, tables, arguments, interruption.

Every package but `runner.common` may import it, including `reporting`.
"""
