"""Asks /health/live again and again: `python -m benchmarks.serving.alive URL SECONDS` prints the seconds as JSON."""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

PAUSE_S = 0.05


def main() -> None:
    address, seconds = urlsplit(sys.argv[1]), float(sys.argv[2])
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    times, until = [], time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"/health/live answered {response.status}")
        times.append(time.perf_counter() - started)
        time.sleep(PAUSE_S)
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
