"""Benchmarks: scripts that measure the figures which the documentation quotes. `python -m benchmarks` runs them all."""
