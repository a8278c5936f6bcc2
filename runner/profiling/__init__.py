"""What a run costs and how the machine is set: clocks, tokens, energy, memory, kernels, matrix products, the allocator.

Packages that train, record or run may import it. It imports only `runner.common` and `runner.config`.
"""
