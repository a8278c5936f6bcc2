"""The configs, which name what `runner` may not import."""

DATA = "tasks.datasets.guess.guess"  # the function that works out what data=FILE holds
