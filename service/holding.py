"""A bound on the bytes of request bodies that are held at one time, however many clients send them."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import QueueFull


class Holding:
    """Counts the bytes that requests hold, from their arrival to their answer. Used on the event loop alone.

    Args:
        max_bytes: Most bytes held at one time.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes held now."""
        return self._held

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """What one request holds; given back at the end."""
        share = Share(self)
        try:
            yield share
        finally:
            self._held -= share.bytes

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            QueueFull: There is no room for them.
        """
        if self._held + count > self._max_bytes:
            raise QueueFull(
                f"{self._held:,} bytes of requests are being worked on; at most {self._max_bytes:,} may be held: "
                "try again later",
                retry_after_s=1,
            )
        self._held += count


class Share:
    """The bytes that one request holds."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self.bytes = 0

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            QueueFull: As `Holding.take`.
        """
        self._holding.take(count)
        self.bytes += count
