"""One run from its config to its result, as a process of its own; and the search for a learning rate's range.

Only commands may import it. It imports training, the advisor, inference and all below.
"""
