"""Other servers for the same model, to compare the service with; each is `python -m benchmarks.serving.peers.NAME`."""
