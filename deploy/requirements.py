"""Print what the package needs at run time, one requirement a line, read from pyproject.toml.

    python3 deploy/requirements.py [EXTRA ...]

The image installs these before the source is copied, so that a change of source does not install everything again.
Versions come from requirements.lock, which pip is given as constraints.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    """The base dependencies of a project followed by those of some extras.

    Args:
        pyproject: the file to read.
        extras: names from its `optional-dependencies`.

    Returns:
        Requirements as pip takes them.

    Raises:
        SystemExit: an extra is not in the file.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    unknown = sorted(set(extras) - set(optional))
    if unknown:
        sys.exit(f"no extra {', '.join(unknown)} in {pyproject.name}; it has {', '.join(sorted(optional))}")
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


if __name__ == "__main__":
    print("\n".join(requirements(Path(__file__).parents[1] / "pyproject.toml", sys.argv[1:])))
