"""The objects that a config names by `_target_`, built in one place before data is read, so that mistakes show early.

Parts that depend on the data or the model (vocabularies, sizes, parameters) are factories: their options are checked
here, and they are built when the missing arguments are known. Packages that read data, build models or run them
may import it.
"""
