"""One run from its config to its result, the process of a run, and the learning-rate range test.

Only commands may import it. It imports training, the advisor, inference and all below.
"""
