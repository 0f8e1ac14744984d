"""Jobs in an SQLite file: what was asked, where each stands, and what came out.

Every change of status is one conditional UPDATE, so that of two that happen at once (a job succeeds, its client cancels
it) one wins and the other finds out. The file belongs to one process at a time (`service.evaluations.state`), and
within it to any thread.
"""

import json
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)

from service.errors import Conflict, QueueFull
from service.evaluations.jobs import ACTIVE, FINISHED, WAITING, Job, Order, Status

VERSION = 1  # of the tables, kept in SQLite's `user_version`
BUSY_TIMEOUT_S = 10.0
_BEGUN = (Status.RUNNING, Status.INTERRUPTED)
MOST_CRASHES = 3  # of the process while one job runs, after which it is not begun again

_tables = MetaData()
_jobs = Table(
    "jobs",
    _tables,
    Column("number", Integer, primary_key=True),  # in order of arrival
    Column("id", String, nullable=False, unique=True),
    Column("key", String, unique=True),
    Column("fingerprint", String, nullable=False),
    Column("status", String, nullable=False, index=True),
    Column("model", String, nullable=False),
    Column("dataset", String, nullable=False),
    Column("images", Integer, nullable=False),
    Column("uploaded", Boolean, nullable=False),
    Column("options", JSON, nullable=False),
    Column("passes", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("crashes", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("document", Text),  # JSON of the result; not read with the rest, since it is large
    sqlite_autoincrement=True,
)
_shown = [column for column in _jobs.columns if column.name != "document"]


class StoreError(Exception):
    """The file is of another version; the message says what to do."""


class Store:
    """The jobs of one state folder.

    Args:
        path: The SQLite file; made when it is not there.

    Raises:
        StoreError: It was written by another version of the service.
        sqlalchemy.exc.SQLAlchemyError: It cannot be read or written, as any method may find.
    """

    def __init__(self, path: Path) -> None:
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(self._engine, "connect", _prepare)
        self._lock = threading.Lock()  # of what looks before it writes
        try:
            _require_version(self._engine, path)
            _tables.create_all(self._engine)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def add(self, job_id: str, order: Order, max_waiting: int) -> tuple[Job, bool]:
        """Take an order, or find the job that its key already names.

        Returns:
            The job, and whether it is new.

        Raises:
            Conflict: The key names a job that asked for something else.
            QueueFull: So many wait already.
        """
        values = {name: getattr(order, name) for name in Order.__slots__}
        with self._lock:
            known = self.known(order)
            if known is not None:
                return known, False
            with self._engine.begin() as connection:
                waiting = connection.scalar(select(func.count()).where(_jobs.c.status.in_(WAITING))) or 0
                require_room(waiting, max_waiting)
                values |= {"id": job_id, "status": Status.QUEUED, "created": time.time()}
                connection.execute(insert(_jobs).values(values))
        job = self.get(job_id)
        assert job is not None
        return job, True

    def known(self, order: Order) -> Job | None:
        """The job that an order with this key already made.

        Raises:
            Conflict: It asked for something else.
        """
        if order.key is None:
            return None
        job = self._one(_jobs.c.key == order.key)
        if job is not None and job.order.fingerprint != order.fingerprint:
            raise Conflict(
                f"Idempotency-Key {order.key!r} was used for evaluation {job.id}, which asked for something else; take "
                "a new key for a new evaluation"
            )
        return job

    def get(self, job_id: str) -> Job | None:
        """The job of this id."""
        return self._one(_jobs.c.id == job_id)

    def document(self, job_id: str) -> dict[str, Any] | None:
        """The result of a job; None for one without."""
        with self._engine.connect() as connection:
            text = connection.scalar(select(_jobs.c.document).where(_jobs.c.id == job_id))
        return None if text is None else json.loads(text)

    def newest(self, limit: int, before: str | None, statuses: Sequence[Status]) -> list[Job]:
        """The newest jobs first: at most `limit`, only those that came before the job `before`, of these statuses."""
        wanted = select(*_shown).order_by(_jobs.c.number.desc()).limit(limit)
        if statuses:
            wanted = wanted.where(_jobs.c.status.in_(statuses))
        if before is not None:
            number = select(_jobs.c.number).where(_jobs.c.id == before).scalar_subquery()
            wanted = wanted.where(_jobs.c.number < number)
        with self._engine.connect() as connection:
            return [_job(row) for row in connection.execute(wanted)]

    def counts(self) -> dict[Status, int]:
        """Jobs of every status."""
        with self._engine.connect() as connection:
            found = connection.execute(select(_jobs.c.status, func.count()).group_by(_jobs.c.status))
            counted = {Status(status): count for status, count in found}
        return {status: counted.get(status, 0) for status in Status}

    def next_waiting(self) -> Job | None:
        """The job that waits longest."""
        wanted = select(*_shown).where(_jobs.c.status.in_(WAITING)).order_by(_jobs.c.number).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(wanted).first()
        return None if row is None else _job(row)

    def begin(self, job_id: str) -> bool:
        """Let a waiting job run; False when it no longer waits."""
        return self._move(job_id, WAITING, status=Status.RUNNING, started=time.time())

    def succeed(self, job_id: str, document: str) -> bool:
        """Keep the result of a job, as JSON; False when it was cancelled. Said to be interrupted it may still end."""
        return self._move(job_id, _BEGUN, status=Status.SUCCEEDED, finished=time.time(), document=document)

    def fail(self, job_id: str, error: str) -> bool:
        """Say why a job came to nothing; False when it was cancelled."""
        return self._move(job_id, _BEGUN, status=Status.FAILED, finished=time.time(), error=error)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that is not finished; False when it is, or is not there."""
        return self._move(job_id, ACTIVE, status=Status.CANCELLED, finished=time.time())

    def interrupt(self, job_id: str) -> bool:
        """Let a running job wait again; False when it does not run."""
        return self._move(job_id, (Status.RUNNING,), status=Status.INTERRUPTED)

    def remove(self, job_id: str) -> bool:
        """Forget a finished job; False when it is not finished, or not there."""
        with self._engine.begin() as connection:
            gone = connection.execute(delete(_jobs).where(_jobs.c.id == job_id, _jobs.c.status.in_(FINISHED)))
        return bool(gone.rowcount)

    def keep_newest(self, count: int) -> None:
        """Forget finished jobs but for so many of those that ended last."""
        finished = select(_jobs.c.number).where(_jobs.c.status.in_(FINISHED))
        kept = finished.order_by(_jobs.c.finished.desc(), _jobs.c.number.desc()).limit(count)
        with self._engine.begin() as connection:
            connection.execute(delete(_jobs).where(_jobs.c.number.in_(finished), _jobs.c.number.not_in(kept)))

    def recover(self) -> list[Job]:
        """At the start: jobs that ran when the process died wait again, those that died with it too often fail.

        Returns:
            What waits.
        """
        died = _jobs.c.status == Status.RUNNING
        too_often = f"the process ended {MOST_CRASHES} times while this job ran; it is not begun again"
        with self._engine.begin() as connection:
            connection.execute(update(_jobs).where(died).values(crashes=_jobs.c.crashes + 1))
            connection.execute(
                update(_jobs)
                .where(died, _jobs.c.crashes >= MOST_CRASHES)
                .values(status=Status.FAILED, finished=time.time(), error=too_often)
            )
            connection.execute(update(_jobs).where(died).values(status=Status.INTERRUPTED))
            waiting = connection.execute(select(*_shown).where(_jobs.c.status.in_(WAITING)))
            return [_job(row) for row in waiting]

    def _one(self, where: Any) -> Job | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(*_shown).where(where)).first()
        return None if row is None else _job(row)

    def _move(self, job_id: str, from_status: Sequence[Status], **values: Any) -> bool:
        """Change a job that stands at one of these; False when it does not."""
        change = update(_jobs).where(_jobs.c.id == job_id, _jobs.c.status.in_(from_status)).values(**values)
        with self._engine.begin() as connection:
            return bool(connection.execute(change).rowcount)


def new_id() -> str:
    """An id that nobody guesses."""
    return secrets.token_hex(8)


def require_room(waiting: int, max_waiting: int) -> None:
    """Refuse an order that has to wait behind as many as may wait.

    Raises:
        QueueFull: As many wait.
    """
    if waiting >= max_waiting:
        raise QueueFull(
            f"{waiting} evaluations wait; at most {max_waiting} may: try again when one has ended, or cancel one",
            retry_after_s=60,
        )


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    order = Order(**{name: values[name] for name in Order.__slots__})
    own = {name: values[name] for name in Job.__slots__ if name not in ("order", "status")}
    return Job(order=order, status=Status(values["status"]), **own)


def _prepare(connection: Any, _: object) -> None:
    """Of every connection: what was answered is on the disk."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _require_version(engine: Engine, path: Path) -> None:
    """Check the version, then let readers not wait for a writer, which the file remembers."""
    with engine.connect() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar()
        tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar()
        if version == 0 and tables == 0:
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            connection.commit()
        elif version != VERSION:
            raise StoreError(
                f"{path} is of version {version}, this service reads and writes version {VERSION}: move the file away, "
                "or name another folder with CCNET_STATE_DIR"
            )
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
