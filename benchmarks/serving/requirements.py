"""Says what to install where a benchmark of the service lacks something."""

from importlib.util import find_spec
from shutil import which


def require(package: str) -> None:
    """Go on only where a package of the extra `bench` is there.

    Raises:
        SystemExit: It is not; the message says how to get it.
    """
    if find_spec(package) is None:
        raise SystemExit(
            f"benchmarks of the service need {package}, which is not installed: pip install 'ccnet[bench]'"
        )


def require_wrk() -> None:
    """Go on only where the load generator wrk is there.

    Raises:
        SystemExit: It is not; the message says how to get it.
    """
    if which("wrk") is None:
        raise SystemExit("closed loops are made by wrk, which is not installed: apt-get install wrk")
