"""The cost of a run, and the settings of the machine: clocks, tokens, energy, memory, kernels, products, allocator.

Packages that train, record or run may import it. It imports only `runner.common` and `runner.config`.
"""
