"""Basics that any package may need: errors, types, files, the names in a run's folder.

Every package may import it, including `reporting`. It imports no other package of this project.
"""
