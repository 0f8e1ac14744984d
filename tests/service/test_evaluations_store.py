"""The state folder of evaluations: what is found there at the start, who may use it, and when it cannot be written."""

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from service.errors import Conflict, QueueFull
from service.evaluations.jobs import FINISHED, Order, Status
from service.evaluations.schemas import EvaluationOptions
from service.evaluations.state import DATABASE, INCOMING, LOCK, UPLOADS, State, StateError, default_folder
from service.evaluations.store import MOST_CRASHES, VERSION, Store, new_id
from service.evaluations.worker import Worker
from tests.service.conftest import running, service_behind
from tests.service.pictures import grey
from tests.service.test_bad_input import assert_problem
from tests.service.test_evaluations import PATH, archive, finished, kept_files, post, standing

MANY = 1000


@pytest.fixture
def store(tmp_path) -> Iterator[Store]:
    store = Store(tmp_path / DATABASE)
    yield store
    store.close()


def order(key: str | None = None, fingerprint: str = "f") -> Order:
    return Order("fake", "shoes", 3, {"seed": 0}, 3, fingerprint, key, uploaded=False)


def add(store: Store, key: str | None = None) -> str:
    """A job that waits."""
    job, is_new = store.add(new_id(), order(key), MANY)
    assert is_new
    return job.id


def statuses(store: Store) -> dict[str, Status]:
    return {job.id: job.status for job in store.newest(MANY, None, ())}


def test_jobs_that_ran_when_the_process_died_wait_again_and_before_later_ones(store):
    first, second, third = (add(store) for _ in range(3))
    assert store.begin(second)
    assert store.begin(first)
    assert [job.id for job in store.recover()] == [first, second, third]
    assert statuses(store) == {first: Status.INTERRUPTED, second: Status.INTERRUPTED, third: Status.QUEUED}
    waiting = store.next_waiting()
    assert waiting is not None
    assert (waiting.id, waiting.crashes) == (first, 1)
    assert store.begin(first), "it begins anew"


def test_a_job_during_which_the_process_died_too_often_is_not_begun_again(store):
    job_id = add(store)
    for _ in range(MOST_CRASHES - 1):
        assert store.begin(job_id)
        assert [job.status for job in store.recover()] == [Status.INTERRUPTED]
    assert store.begin(job_id)
    assert store.recover() == []
    job = store.get(job_id)
    assert job is not None
    assert (job.status, job.crashes) == (Status.FAILED, MOST_CRASHES)
    assert job.error is not None
    assert f"ended {MOST_CRASHES} times" in job.error
    assert job.finished is not None


def test_an_orderly_stop_is_no_crash(store):
    job_id = add(store)
    for _ in range(MOST_CRASHES + 1):
        assert store.begin(job_id)
        assert store.interrupt(job_id)
        assert [job.crashes for job in store.recover()] == [0]


def test_of_two_changes_at_once_one_wins_and_the_other_finds_out(store):
    job_id = add(store)
    assert store.begin(job_id)
    assert not store.begin(job_id)
    assert store.cancel(job_id)
    assert not store.succeed(job_id, "{}")
    assert not store.fail(job_id, "too late")
    assert not store.interrupt(job_id)
    assert store.document(job_id) is None
    assert statuses(store) == {job_id: Status.CANCELLED}
    assert store.remove(job_id)
    assert not store.remove(job_id)


def test_a_job_said_to_be_interrupted_may_still_end_with_its_result(store):
    job_id = add(store)
    assert store.begin(job_id)
    assert store.interrupt(job_id)
    assert store.succeed(job_id, '{"a": 1}')
    assert store.document(job_id) == {"a": 1}


def test_only_finished_jobs_are_forgotten_and_those_that_ended_last_are_kept(store):
    ids = [add(store) for _ in range(6)]
    for job_id in (ids[2], ids[0], ids[1]):
        assert store.begin(job_id)
        assert store.succeed(job_id, "{}")
    assert store.cancel(ids[3])
    assert store.begin(ids[4])
    store.keep_newest(2)
    left = statuses(store)
    assert set(left) == {ids[1], ids[3], ids[4], ids[5]}
    assert sum(status in FINISHED for status in left.values()) == 2
    store.keep_newest(0)
    assert set(statuses(store)) == {ids[4], ids[5]}


def test_a_key_means_one_question_as_long_as_its_job_is_there(store):
    job_id = add(store, "key")
    assert store.add(new_id(), order("key"), MANY)[0].id == job_id
    with pytest.raises(Conflict, match=job_id):
        store.add(new_id(), order("key", "g"), MANY)
    store.cancel(job_id)
    store.remove(job_id)
    assert store.add(new_id(), order("key", "g"), MANY)[1]


def test_no_more_wait_than_may(store):
    running_one = add(store)
    store.begin(running_one)
    store.add(new_id(), order(), 1)
    with pytest.raises(QueueFull, match="1 evaluations wait"):
        store.add(new_id(), order(), 1)


def test_a_thousand_jobs_are_listed_page_by_page_each_once(store):
    ids = [add(store) for _ in range(MANY)]
    for job_id in ids[::2]:
        store.cancel(job_id)
    for wanted, expected in (((), ids[::-1]), ((Status.CANCELLED,), ids[::2][::-1])):
        seen: list[str] = []
        while page := store.newest(96, seen[-1] if seen else None, wanted):
            seen += [job.id for job in page]
        assert seen == expected
    assert store.counts()[Status.CANCELLED] == MANY // 2


@pytest.mark.parametrize("version", [0, VERSION + 1])
def test_a_file_of_another_version_is_left_alone_and_named(tmp_path, version):
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("CREATE TABLE other (a)")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    before = (tmp_path / DATABASE).read_bytes()
    with pytest.raises(StateError, match=rf"is of version {version}.*version {VERSION}.*CCNET_STATE_DIR"):
        State(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == before


def test_what_is_no_database_is_refused_and_left_alone(tmp_path):
    (tmp_path / DATABASE).write_bytes(b"a letter to my aunt" * 100)
    with pytest.raises(StateError, match="not a database"):
        State(tmp_path)
    assert (tmp_path / DATABASE).read_bytes() == b"a letter to my aunt" * 100


def test_a_folder_is_used_by_one_at_a_time_and_free_when_it_is_closed(tmp_path):
    first = State(tmp_path)
    with pytest.raises(StateError, match=r"another process uses .*CCNET_STATE_DIR"):
        State(tmp_path)
    first.close()
    State(tmp_path).close()


def test_a_folder_that_cannot_be_made_or_read_is_told_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError, match=r"cannot be written: (File exists|Not a directory)"):
            State(folder)
    (tmp_path / LOCK).mkdir()
    with pytest.raises(StateError, match="Is a directory"):
        State(tmp_path)


def test_uploads_of_no_job_are_removed_and_those_of_waiting_ones_kept(tmp_path):
    state = State(tmp_path)
    for name in ("kept", "gone", f"{INCOMING}broken-off"):
        (tmp_path / UPLOADS / name).touch()
    state.drop_all_but({"kept"})
    assert [path.name for path in (tmp_path / UPLOADS).iterdir()] == ["kept"]
    state.close()


def test_nobody_else_may_read_uploads(tmp_path):
    state = State(tmp_path / "new")
    with state.incoming() as file:
        assert os.stat(file.name).st_mode & 0o077 == 0
    assert (tmp_path / "new" / UPLOADS).stat().st_mode & 0o077 == 0
    assert list((tmp_path / "new" / UPLOADS).iterdir()) == []
    state.close()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/var/state", "/var/state/ccnet"),
        ("relative", "/me/.local/state/ccnet"),
        ("", "/me/.local/state/ccnet"),
    ],
)
def test_the_folder_is_that_of_the_user_where_none_is_given(monkeypatch, given, expected):
    monkeypatch.setenv("XDG_STATE_HOME", given)
    monkeypatch.setenv("HOME", "/me")
    assert default_folder() == Path(expected)


async def test_the_second_service_on_a_folder_serves_and_says_why_it_evaluates_nothing(make_evaluating):
    async with running(make_evaluating()) as first, running(make_evaluating()) as second:
        assert (await post(first)).status_code == 202
        for response in (await post(second), await second.get(PATH), await second.delete(f"{PATH}/0")):
            assert_problem(response, 503, "another process uses", "all else is served")
        assert (await second.post("/v1/classify", files={"images": grey(1)})).status_code == 200
        assert (await second.get("/health/ready")).status_code == 200


async def test_what_ran_or_waited_is_run_by_the_next_service_with_the_data_set_that_came_with_it(
    make_evaluating, assessor, tmp_path
):
    state = State(tmp_path / "jobs")
    options = EvaluationOptions(model="fake", ensemble_sizes=[2], seed=4).model_dump(mode="json")
    for job_id in ("a1", "a2"):
        with state.incoming() as file:
            file.write(archive(2))
            state.keep(file, job_id)
        state.store.add(job_id, Order("fake", "shoes", 2, options, 2, "f", None, uploaded=True), MANY)
    assert state.store.begin("a1")
    state.close()
    async with running(make_evaluating()) as client:
        for job_id in ("a1", "a2"):
            result = (await finished(client, job_id))["result"]
            assert result == {"dataset": "shoes", "sizes": [1, 2], "seed": 4, "passes": 2}
    assert kept_files(tmp_path) == []
    assert [len(dataset) for dataset in assessor.seen] == [2, 2]


async def test_an_upload_that_finds_the_disk_full_is_refused_and_leaves_nothing(make_evaluating, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with running(make_evaluating()) as client:
        for place in ("fsync", "rename"):
            with monkeypatch.context() as patch:
                patch.setattr(os, place, full)
                assert_problem(await post(client), 503, "No space left on device", "try again later")
            assert kept_files(tmp_path) == []
        assert (await client.get(PATH)).json()["evaluations"] == []
        assert (await finished(client, (await post(client)).json()["id"]))["status"] == "succeeded"


@contextmanager
def full_database(client: httpx.AsyncClient) -> Iterator[None]:
    """The database of the service behind a client can be read, and not written."""
    state = service_behind(client).evaluations._state
    assert state is not None

    def refuse(connection: object, cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("SELECT"):
            raise OperationalError(statement, {}, sqlite3.OperationalError("database or disk is full"))

    event.listen(state.store._engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(state.store._engine, "before_cursor_execute", refuse)


async def test_a_database_that_cannot_be_written_refuses_jobs_and_answers_what_it_can(make_evaluating, tmp_path):
    async with running(make_evaluating()) as client:
        job_id = (await post(client)).json()["id"]
        await finished(client, job_id)
        with full_database(client):
            assert_problem(await post(client), 503, "cannot be kept now (database or disk is full)")
            assert_problem(await client.delete(f"{PATH}/{job_id}"), 503, "disk is full")
            assert kept_files(tmp_path) == []
            assert (await client.get(f"{PATH}/{job_id}")).json()["status"] == "succeeded"
            assert (await client.post("/v1/classify", files={"images": grey(1)})).status_code == 200
        assert (await finished(client, (await post(client)).json()["id"]))["status"] == "succeeded"


async def test_a_result_that_cannot_be_written_is_kept_until_it_can_be(make_evaluating, assessor, monkeypatch):
    tries = threading.Event()
    write = Worker._write

    def note(*given: Any) -> None:
        tries.set()
        write(*given)

    monkeypatch.setattr("service.evaluations.worker.TRY_AGAIN_S", 0.01)
    async with running(make_evaluating()) as client:
        assessor.gate.clear()
        job_id = (await post(client)).json()["id"]
        await standing(client, job_id, "running")
        with full_database(client):
            monkeypatch.setattr(Worker, "_write", note)
            assessor.gate.set()
            assert await asyncio.to_thread(tries.wait, 30)
            assert (await client.get(f"{PATH}/{job_id}")).json()["status"] == "running"
        assert (await finished(client, job_id))["status"] == "succeeded"
