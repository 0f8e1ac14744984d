"""One benchmark in a process of its own, started by `run.run_all`: NAME and the options as JSON."""

import sys

from ccnet.benchmarks.catalogue import find
from ccnet.benchmarks.run import Options, run_one

if __name__ == "__main__":
    (chosen,) = find([sys.argv[1]])
    sys.exit(run_one(chosen, Options.from_json(sys.argv[2]), sys.stdout, sys.stderr))
