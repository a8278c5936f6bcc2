"""A corpus as integer columns: reading, truncating and caching it.

Packages from training upwards may import it. It imports tasks' interfaces, never a task.
"""
