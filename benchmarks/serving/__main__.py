"""The service under load: `python -m benchmarks.serving [NAME ...] [--quick] [--save]`.

Starts real processes, asks them over HTTP from this machine, and prints a table and one JSON line a figure; `--save`
keeps the result under benchmarks/results/HARDWARE/serving_NAME.json.
"""

import argparse
import json
import signal
import sys

import torch

from benchmarks.report import RESULTS
from benchmarks.serving.requirements import require, require_wrk
from ccnet.benchmarks.compare import path_of
from ccnet.benchmarks.report import Result, Settings, document, for_people, json_line
from ccnet.files import write_atomically


def main() -> None:
    require("aiohttp")  # which the module with the figures imports
    from benchmarks.serving.figures import FIGURES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(FIGURES)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="short: does it work here?")
    parser.add_argument("--save", action="store_true", help="keep the results")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers that were started are ended
    for name in options.names:
        if name not in FIGURES:
            parser.error(f"no figure {name!r}; there are {', '.join(FIGURES)}")
    if "goodput" in (options.names or FIGURES):
        require("litserve")  # before other figures have taken their minutes
    if {"throughput", "latency", "overload"}.intersection(options.names or FIGURES):
        require_wrk()
    for name in options.names or FIGURES:
        result = Result()
        FIGURES[name](result, options.quick)
        values = document(f"serving_{name}", result, Settings(quick=options.quick, threads=torch.get_num_threads()))
        sys.stdout.write(f"== {name}\n{for_people(result)}\n{json_line(values)}")
        sys.stdout.flush()
        if options.save:
            path = path_of(RESULTS, values["hardware"], f"serving_{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(values, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
