"""The objects that a config names by `_target_`, made in one place before data is read, so that mistakes show at once.

Parts that need what only data or a model tell (vocabularies, sizes, parameters) are factories: their options are
checked here, and they are built when the rest is known. Packages that read data, build models or run them may import
it.
"""
