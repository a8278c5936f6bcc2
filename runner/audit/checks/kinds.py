"""The kinds of faults that the audit can name, each with a hint on how to fix it."""

from __future__ import annotations

VALUE_LEAK = "value leak through padding"
WIDTH = "width dependence"
ORDER = "order dependence"
NEIGHBOURS = "neighbour dependence"
STATE = "state carried over"
LOSS = "loss normalisation"
METRIC = "metric computed per batch"
RANDOM = "random outputs"
SHARED_DROPOUT = "randomness shared by rows"
NOT_FINITE = "not finite"
OVERFLOW = "numeric overflow"
ERROR = "error"
FUTURE = "later tokens read"

ROOTS = (STATE, RANDOM)  # faults that may cause every other difference of the same subject

HINTS = {
    VALUE_LEAK: "Values in the padding reach real tokens: select before you mix, with x.masked_fill(~mask, 0) for sums "
    "and convolutions, and -inf for maxima and softmax; run the backward direction from each row's own end; or pack "
    "the rows.",
    WIDTH: "The result depends on the amount of padding: divide by lengths, count positions from the row's own start, "
    "take the state at length - 1, and stop recursions where the row ends.",
    ORDER: "Outputs come back in a different order than the rows went in: undo the sort, or sort labels and lengths "
    "too; or one row leaves state behind for the next.",
    NEIGHBOURS: "Rows of one batch are mixed although there is no padding: statistics over the batch (batch norm), a "
    "convolution across the boundary of two rows, or a wrong axis.",
    STATE: "State is kept from one batch to the next: start each batch from zeros, and keep no tensors in self.",
    LOSS: "The loss is averaged in parts: return its sum and its count, and divide once per update.",
    METRIC: "The metric is averaged over batches: accumulate counts or sums, and compute once at the end.",
    RANDOM: "The same examples give different outputs under another seed: turn off the module's randomness (dropout "
    "under other names, noise, stochastic depth), or audit eval mode only.",
    SHARED_DROPOUT: "All rows share one dropout mask: draw (rows, 1, size), not (1, 1, size) or (1, width, size).",
    NOT_FINITE: "A row without tokens, or a fully masked one, gives NaN: divide by max(length, 1), and let such rows "
    "attend to one position whose output is not used.",
    OVERFLOW: "A constant such as -1e9 does not fit into half precision: mask with -inf, or torch.finfo(x.dtype).min.",
    ERROR: "The module cannot process such examples: return an output for them, or document which examples it accepts.",
    FUTURE: "A token's output depends on later tokens, which a language model has to predict: mask attention to them, "
    "pad convolutions at the start only, run no backward direction, and compute nothing over the whole row.",
}
