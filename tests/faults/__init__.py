"""The campaign of faults: killed runs, damaged files, nonsense in configs, crowds, bad servers and full disks.

Its parts run at two sizes: small in the tests, and large by `make campaign`.
"""
