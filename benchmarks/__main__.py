"""Run benchmarks one after the other, each in a process of its own: `python -m benchmarks [--save] [NAME ...]`."""

import subprocess
import sys

NAMES = ("training_step", "memory", "sequences")


def main() -> int:
    """Run the benchmarks named on the command line, or all; the exit status of the first that fails."""
    options = [word for word in sys.argv[1:] if word == "--save"]
    names = [word for word in sys.argv[1:] if word not in options] or list(NAMES)
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    for name in names:
        print(f"== {name}", flush=True)
        status = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
