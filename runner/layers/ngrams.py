"""N-grams of ids, hashed into buckets (Weinberger et al. 2009), in both layouts and without a loop over tokens."""

from __future__ import annotations

import torch

from runner.ragged.ragged import Ragged

# constants of a polynomial hash (Karp and Rabin 1987) and of the mixing after it; products stay below 2**63
PRIME, BASE, SCATTER = 2**31 - 1, 16_777_619, 739_982_445


def ngram_buckets(ids: Ragged, length: int, buckets: int) -> Ragged:
    """Return the bucket, int64 from 1 to `buckets`, of the n-gram of `length` tokens that ends at each token.

    The bucket is 0 where the row has fewer tokens up to there, and in padding.
    """
    values = ids.filled(0).long()
    hashed = torch.full_like(values, length)
    for back in range(length - 1, -1, -1):
        hashed = (hashed * BASE + values.roll(back, dims=-1)) % PRIME  # ids rolled in from another row are masked below
    # the polynomial alone maps similar n-grams to neighbouring values: mix the bits before taking the remainder
    hashed = (hashed ^ (hashed >> 15)) * SCATTER % PRIME
    hashed = hashed ^ (hashed >> 12)
    if ids.layout == "packed":
        complete = ids.rows.position >= length - 1
    else:
        complete = ids.rows.mask & (torch.arange(ids.rows.width, device=values.device) >= length - 1)
    return ids.with_values((hashed % buckets + 1).masked_fill(~complete, 0))
