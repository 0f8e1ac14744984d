"""Asks /health/live twenty times a second: `python -m benchmarks.serving.alive URL SECONDS` prints seconds as JSON.

Each is counted from when it was due, so a stall counts for all that it holds up.
"""

import http.client
import json
import sys
import time
from urllib.parse import urlsplit

PERIOD_S = 0.05


def main() -> None:
    address, seconds = urlsplit(sys.argv[1]), float(sys.argv[2])
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    times, due = [], time.perf_counter()
    until = due + seconds
    while due < until:
        time.sleep(max(0.0, due - time.perf_counter()))
        connection.request("GET", "/health/live")
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise RuntimeError(f"/health/live answered {response.status}")
        times.append(time.perf_counter() - due)
        due += PERIOD_S
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
