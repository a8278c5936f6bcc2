"""The evaluation of a finished run: metrics on its own splits and, for language models, the likelihood of any text.

Commands and `tasks.metrics` may import it. It imports generation and all below.
"""
