"""`python -m benchmarks [NAME ...]`: what `ccnet bench` was before it was a verb; kept for one release."""

import sys

from ccnet.cli import app

if __name__ == "__main__":
    print("python -m benchmarks is now called ccnet bench", file=sys.stderr)
    app(["bench", *sys.argv[1:]])
