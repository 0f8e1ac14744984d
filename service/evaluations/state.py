"""The folder in which evaluations are kept: jobs in `evaluations.sqlite`, uploaded data sets beside it until they end.

One process at a time may use it: two would begin each other's jobs anew. The system's lock on a file tells, and lets go
when the process ends, however it does.
"""

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy.exc import SQLAlchemyError

from service.evaluations.store import Store, StoreError

DATABASE, LOCK, UPLOADS = "evaluations.sqlite", "lock", "uploads"
INCOMING = ".incoming-"  # what the name of a file begins with while it is being received


class StateError(Exception):
    """The folder cannot be used; the message says why."""


def default_folder() -> Path:
    """`ccnet` in the user's folder for state (XDG Base Directory Specification 0.8)."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state") / "ccnet"


class State:
    """A state folder that this process uses.

    Args:
        folder: Made when it is not there.

    Attributes:
        folder: The same.
        store: The jobs.

    Raises:
        StateError: It cannot be made or written, another process uses it, or it is of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._uploads = folder / UPLOADS
        try:
            self._uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder / LOCK)
        except OSError as error:
            raise StateError(f"{folder} cannot be written: {error.strerror or error}") from error
        try:
            self.store = Store(folder / DATABASE)
        except (SQLAlchemyError, StoreError) as error:
            self._lock.close()
            raise StateError(_in_words(error)) from error

    def close(self) -> None:
        """Let go of it."""
        self.store.close()
        self._lock.close()

    @contextmanager
    def incoming(self) -> Iterator[IO[bytes]]:
        """A file to receive an upload into; removed at the end unless it was kept.

        Raises:
            OSError: There is no room for it.
        """
        with tempfile.NamedTemporaryFile(dir=self._uploads, prefix=INCOMING, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def keep(self, file: IO[bytes], job_id: str) -> None:
        """Keep what was received as the data set of a job."""
        file.flush()
        os.fsync(file.fileno())
        os.rename(file.name, self.upload(job_id))

    def upload(self, job_id: str) -> Path:
        """Where the data set of a job is."""
        return self._uploads / job_id

    def drop(self, job_id: str) -> None:
        """Remove the data set of a job, if it has one."""
        self.upload(job_id).unlink(missing_ok=True)

    def drop_all_but(self, job_ids: Collection[str]) -> None:
        """Remove what was left behind: data sets of no other job, and what was being received when the process died."""
        for path in self._uploads.iterdir():
            if path.name not in job_ids:
                path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    """The file, locked until it is closed."""
    file = open(path, "ab")  # noqa: SIM115  # open for as long as the state is
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StateError(
            f"another process uses {path.parent}: name a folder of its own for each with CCNET_STATE_DIR"
        ) from error
    return file


def _in_words(error: Exception) -> str:
    """Without the statement and the link to a web page that SQLAlchemy adds."""
    original = getattr(error, "orig", None)
    return str(error if original is None else original)
