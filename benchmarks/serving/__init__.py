"""Benchmarks of the service over real HTTP; `python -m benchmarks.serving --help`."""
