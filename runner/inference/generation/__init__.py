"""Text generation by a trained language model: greedy, by sampling or by beam search, several prompts at once.

The other packages of `runner.inference` and commands may import it.
"""
