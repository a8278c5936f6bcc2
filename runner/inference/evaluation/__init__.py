"""What a finished run is worth: on its own splits, and, of language models, the likelihood of any text.

Commands and `tasks.metrics` may import it. It imports generation and all below.
"""
