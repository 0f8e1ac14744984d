"""What belongs to the source tree and not to the package: kept results, `publish`, and the benchmark of a GPU.

Measuring itself is `ccnet bench` (`ccnet/benchmarks`), which works from an installed package too.
"""
