"""One benchmark in a process of its own, started by `run.run_all`: NAME and the options as JSON."""

import sys

from ccnet.allocator import keep_freed_memory
from ccnet.benchmarks.catalogue import find
from ccnet.benchmarks.run import Options, run_one

if __name__ == "__main__":
    (chosen,) = find([sys.argv[1]])
    if chosen.name != "memory":
        keep_freed_memory()  # as `ccnet serve` and `ccnet train` do; page faults of new outputs are nobody's speed
    sys.exit(run_one(chosen, Options.from_json(sys.argv[2]), sys.stdout, sys.stderr))
