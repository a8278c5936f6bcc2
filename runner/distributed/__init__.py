"""Training by several processes, which torch calls ranks: each computes its share of every update."""
