"""Says what to install where a benchmark of the service lacks a package."""

from importlib.util import find_spec


def require(package: str) -> None:
    """Go on only where a package of the extra `bench` is there.

    Raises:
        SystemExit: It is not; the message says how to get it.
    """
    if find_spec(package) is None:
        raise SystemExit(
            f"benchmarks of the service need {package}, which is not installed: pip install 'ccnet[bench]'"
        )
