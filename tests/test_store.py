"""The store, through its own methods; what a kill leaves is tested with a real one in test_serve."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.backends.fake import FakeBackend
from shared.contract import Done, Event, GenerationRequest, ImageReady, Queued, Step, parse_request
from shared.errors import Cancelled, DataUnusable, DiskFull, InvalidCall, NotFound, QueueFull
from shared.store import Store, Terms
from shared.store.database import _SCHEMA_1, _UPGRADES
from shared.store.pruner import STEADY_SECONDS, row_bytes
from shared.store.suspects import MAX_ATTEMPTS

REQUEST = parse_request({"prompt": "a fox", "seed": 7, "steps": 2, "num_images": 2})


class Clock:
    """A clock that goes with the uptime, and a little further where a test sets it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.up = 0.0

    def __call__(self) -> float:
        return self.time

    def uptime(self) -> float:
        return self.up

    def wait(self, seconds: float) -> None:
        self.time += seconds
        self.up += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_store(tmp_path: Path, clock: Clock) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []

    def open_it() -> Store:
        for store in opened:
            store.close()
        opened.append(Store(tmp_path / "data", clock, clock.uptime))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], Store]) -> Store:
    return open_store()


def events_of(request: GenerationRequest) -> list[Event]:
    async def read() -> list[Event]:
        return [event async for event in FakeBackend().generate(request)]

    return asyncio.run(read())


def run(store: Store, request: GenerationRequest = REQUEST, owner: str = "") -> str:
    """A job, done."""
    job = store.add(request, owner).id
    assert store.take() is not None
    for event in events_of(request):
        store.record(job, event)
    return job


def size_of(store: Store, tmp_path: Path) -> int:
    """What the images and the rows take."""
    images = sum(path.stat().st_size for path in (tmp_path / "data" / "images").iterdir())
    with store._db.reading() as db:
        return images + row_bytes(db)


def files(store: Store, tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "data" / "images").iterdir()}


def test_a_job_is_kept_from_its_request_to_its_images(
    open_store: Callable[[], Store], clock: Clock
) -> None:
    store = open_store()
    job = store.add(REQUEST)
    assert (job.status, job.created, job.images) == ("queued", 1000.0, ())
    clock.time = 1001.0
    taken = store.take()
    assert taken and (taken.id, taken.status, taken.started) == (job.id, "running", 1001.0)
    sent = events_of(REQUEST)
    for event in sent:
        store.record(job.id, event)

    done = open_store().job(job.id)
    assert (done.status, done.error) == ("succeeded", None)
    assert parse_request(done.request) == REQUEST
    assert done.result and done.result["seeds"] == [7, 8]
    assert [(image.number, image.seed, image.format) for image in done.images] == [
        (0, 7, "png"),
        (1, 8, "png"),
    ]


def test_events_are_read_back_as_they_were_sent(store: Store) -> None:
    job = run(store)
    sent = [event.model_dump(mode="json") for event in events_of(REQUEST)]
    read = store.events(job)
    assert [event.id for event in read] == list(range(1, len(sent) + 1))
    without_previews = [event | {"preview": None} if "step" in event else event for event in sent]
    assert [event.data for event in read] == without_previews
    assert [event.id for event in store.events(job, after=3, limit=2)] == [4, 5]
    assert store.events(job, after=len(sent)) == []


def test_only_the_newest_preview_of_an_image_is_kept(store: Store) -> None:
    job = store.add(REQUEST).id
    for step in (1, 2):
        for index in (0, 1):
            preview = b"preview %d of %d" % (step, index)
            store.record(job, Step(index=index, step=step, steps=2, preview=preview))
    previews = [event.data["preview"] for event in store.events(job)]
    newest = [base64.b64encode(b"preview 2 of %d" % index).decode() for index in (0, 1)]
    assert previews == [None, None, *newest]


def test_jobs_are_taken_in_the_order_they_came(store: Store) -> None:
    waiting = [store.add(REQUEST).id for _ in range(3)]
    taken = [store.take() for _ in range(4)]
    assert [job.id if job else None for job in taken] == [*waiting, None]


def test_batch_jobs_are_taken_apart_from_the_others(store: Store) -> None:
    batch, interactive, later = [
        store.add(REQUEST, terms=Terms(batch=batch)) for batch in (True, False, True)
    ]
    assert [store.ahead(job) for job in (batch, interactive, later)] == [0, 0, 2]
    wanted = ([True, False], [False], [False], [False, True])
    taken = [store.take(kinds) for kinds in wanted]
    found = [job.id if job else None for job in taken]
    assert found == [batch.id, interactive.id, None, later.id]


def test_a_webhook_is_due_when_its_job_has_ended_and_not_before(
    open_store: Callable[[], Store], clock: Clock
) -> None:
    store = open_store()
    job = store.add(REQUEST, terms=Terms(webhook="https://hook.example/")).id
    run(store)
    assert (store.deliveries.due(9), store.deliveries.wait()) == ([], None)
    store.fail(job, Cancelled("Stopped.", ""))
    [delivery] = store.deliveries.due(9)
    assert (delivery.job, delivery.url, delivery.attempts) == (job, "https://hook.example/", 0)
    store.deliveries.put_off(job, 60)
    store = open_store()
    assert (store.deliveries.due(9), store.deliveries.wait()) == ([], 60)
    clock.time += 60
    assert [delivery.attempts for delivery in store.deliveries.due(9)] == [1]
    store.deliveries.remove(job)
    assert store.deliveries.wait() is None


def test_past_its_bound_the_queue_refuses_and_says_how_long_it_is(store: Store) -> None:
    for _ in range(2):
        store.add(REQUEST, max_queued=2)
    with pytest.raises(QueueFull) as refusal:
        store.add(REQUEST, max_queued=2)
    assert refusal.value.waiting == 2
    assert len(store.jobs("")) == 2


def test_an_idempotency_key_gives_the_same_job_to_the_same_owner_only(store: Store) -> None:
    once = Terms("k", "f")
    first = store.add(REQUEST, "a", once, max_queued=1)
    assert store.add(REQUEST, "a", once, max_queued=1) == first
    assert store.add(REQUEST, "b", once).id != first.id
    with pytest.raises(InvalidCall, match="another request"):
        store.add(REQUEST, "a", Terms("k", "g"))


def test_what_belongs_to_another_key_is_not_there(store: Store) -> None:
    job = run(store, owner="a")
    image = store.job(job).images[0].id
    for read in (lambda: store.job(job, "b"), lambda: store.image(image, "b")):
        with pytest.raises(NotFound):
            read()
    assert store.jobs("b") == []
    assert store.image(image, "a").job == job


@pytest.mark.parametrize("name", ["", "../jobs.sqlite3", "%2e%2e", "a/b", "x\0y", "' OR 1=1 --"])
def test_an_id_is_never_a_path(store: Store, name: str) -> None:
    for read in (store.job, store.image):
        with pytest.raises(NotFound):
            read(name)


def test_jobs_are_listed_newest_first_page_by_page_and_by_status(store: Store) -> None:
    done = run(store)
    waiting = [store.add(REQUEST).id for _ in range(3)]
    newest_first = [*reversed(waiting), done]
    first = store.jobs("", limit=2)
    rest = store.jobs("", limit=10, after=first[-1].id)
    assert [job.id for job in first + rest] == newest_first
    assert [job.id for job in store.jobs("", status="succeeded")] == [done]
    with pytest.raises(NotFound):
        store.jobs("", after="unknown")


def test_what_has_ended_stays_as_it_ended(store: Store, tmp_path: Path) -> None:
    job = store.add(REQUEST).id
    assert store.fail(job, Cancelled("Stopped.", ""))
    assert not store.fail(job, DiskFull("Full.", ""))
    before = store.events(job)
    for event in events_of(REQUEST):
        store.record(job, event)
    assert store.events(job) == before
    assert before[-1].data == {"code": "cancelled", "message": "Stopped.", "next_step": ""}
    assert store.job(job).status == "cancelled"
    assert files(store, tmp_path) == set()


def test_a_job_that_ran_when_the_process_died_waits_again_before_the_others(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    interrupted, waiting = store.add(REQUEST), store.add(REQUEST)
    store.take()
    events = events_of(REQUEST)
    first_image = next(i for i, event in enumerate(events) if isinstance(event, ImageReady))
    for event in events[: first_image + 1]:
        store.record(interrupted.id, event)

    store = open_store()
    store.recover()
    taken = store.take()
    assert taken and taken.id == interrupted.id and taken.attempts == 2
    for event in events:
        store.record(interrupted.id, event)
    sent = [event.data["index"] for event in store.events(interrupted.id) if event.type == "image"]
    assert sent == [0, 1]
    assert len(store.job(interrupted.id).images) == 2
    assert store.job(waiting.id).status == "queued"


def test_a_job_whose_caller_waited_is_cancelled_when_the_process_died(
    open_store: Callable[[], Store],
) -> None:
    store = open_store()
    running, waiting = (store.add(REQUEST, terms=Terms(attended=True)).id for _ in range(2))
    kept = store.add(REQUEST).id
    store.take()
    store = open_store()
    store.recover()
    assert [store.job(job).status for job in (running, waiting)] == ["cancelled"] * 2
    taken = store.take()
    assert taken and taken.id == kept


def test_a_job_that_keeps_killing_the_process_fails(store: Store) -> None:
    job = store.add(REQUEST).id
    for _ in range(MAX_ATTEMPTS):
        assert store.take()
        store.recover()
    assert store.take() is None
    failed = store.job(job)
    assert failed.status == "failed" and failed.error
    assert failed.error["code"] == "internal_error"


def test_a_job_that_was_handed_back_has_not_used_an_attempt(store: Store) -> None:
    job = store.add(REQUEST).id
    for _ in range(MAX_ATTEMPTS + 1):
        store.take()
        store.hand_back(job)
    store.recover()
    assert store.job(job).status == "queued"


def test_files_that_a_kill_left_are_removed_and_other_files_stay(
    open_store: Callable[[], Store], tmp_path: Path
) -> None:
    store = open_store()
    job = run(store)
    kept = files(store, tmp_path)
    folder = tmp_path / "data" / "images"
    (folder / f"{'0' * 32}-0.png").touch()
    (folder / ".cygnet-0123456789abcdef").touch()
    (folder / "holiday.png").touch()
    store = open_store()
    assert files(store, tmp_path) == kept | {"holiday.png"}
    assert all(store.read_image(image) for image in store.job(job).images)


def test_a_folder_belongs_to_one_process(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataUnusable, match="Another process"):
        Store(tmp_path / "data")


def test_a_folder_stays_its_process_s_own_when_the_database_s_file_is_read_meanwhile(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "data" / "jobs.sqlite3").read_bytes()  # closing it drops SQLite's own lock
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for name in ("data", "link"):
        command = [sys.executable, "-c", _OPEN, str(tmp_path / name)]
        told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert "Another process uses" in told.stderr, told.stderr


_OPEN = "import sys, pathlib, shared.store; shared.store.Store(pathlib.Path(sys.argv[1]))"
ROOT = Path(__file__).parents[1]


def killed_while_writing(data: Path, version: int) -> sqlite3.Connection:
    """Leaves in `data` what a process of that version had, of which the newest is in the log alone.

    While the connection is open nothing brings it into the database, as after a kill.
    """
    data.mkdir()
    elsewhere = data.parent / "elsewhere"
    elsewhere.mkdir()
    db = sqlite3.connect(elsewhere / "jobs.sqlite3", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    for step in _UPGRADES[:version]:
        db.executescript(step)
    db.execute(f"PRAGMA user_version = {version}")
    for number in range(20):
        db.execute(
            "INSERT INTO jobs (id, owner, status, request, fingerprint, created)"
            " VALUES (?, '', 'queued', ?, '', 1)",
            (f"{number:032x}", REQUEST.model_dump_json()),
        )
    for path in elsewhere.iterdir():
        shutil.copy(path, data / path.name)
    return db


@pytest.mark.parametrize("version", range(1, len(_UPGRADES) + 1))
def test_a_folder_of_any_version_is_brought_up_with_what_is_in_its_log_alone(
    tmp_path: Path, version: int
) -> None:
    other = killed_while_writing(tmp_path / "data", version)
    other.close()
    assert (tmp_path / "data" / "jobs.sqlite3-wal").stat().st_size > 0
    store = Store(tmp_path / "data")
    assert len(store.jobs("", limit=100)) == 20
    assert store.take()
    store.close()


def _random(log: bytes) -> bytes:
    return random.Random(1).randbytes(len(log))


@pytest.mark.parametrize(
    "damage",
    [
        _random,
        lambda log: log[:20],
        lambda log: b"\0" * len(log),
        lambda log: log[: len(log) // 2] + _random(log[len(log) // 2 :]),
        lambda log: log[:32] + bytes([log[32] ^ 1]) + log[33:],
        lambda log: log[:3000] + bytes([log[3000] ^ 1]) + log[3001:],
        lambda log: b"SQLite format 3" + log[15:],
    ],
)
def test_a_damaged_log_is_named_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    killed_while_writing(tmp_path / "data", len(_UPGRADES)).close()
    log = tmp_path / "data" / "jobs.sqlite3-wal"
    damaged = damage(log.read_bytes())
    log.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(DataUnusable, match="holds the newest changes") as refusal:
            Store(tmp_path / "data")
        assert str(log) in refusal.value.message
    assert log.read_bytes() == damaged
    log.unlink()  # as the next step says
    Store(tmp_path / "data").close()


def test_a_log_whose_last_change_was_not_finished_is_whole(tmp_path: Path) -> None:
    killed_while_writing(tmp_path / "data", len(_UPGRADES)).close()
    log = tmp_path / "data" / "jobs.sqlite3-wal"
    log.write_bytes(log.read_bytes()[:-100])
    store = Store(tmp_path / "data")
    assert len(store.jobs("", limit=100)) == 19
    store.close()


def test_a_folder_of_the_version_before_is_brought_up_with_all_that_is_in_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "data").mkdir()
    db = sqlite3.connect(tmp_path / "data" / "jobs.sqlite3")
    db.executescript(_SCHEMA_1)
    wanted = REQUEST.model_dump_json()
    for job, status, finished in (("a" * 32, "succeeded", 7.0), ("b" * 32, "queued", None)):
        db.execute(
            "INSERT INTO jobs (id, owner, status, request, fingerprint, created, finished)"
            " VALUES (?, '', ?, ?, '', 1, ?)",
            (job, status, wanted, finished),
        )
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    for _ in range(2):  # the second time there is nothing to do
        store = Store(tmp_path / "data")
        assert [(job.id[0], job.batch, job.webhook) for job in store.jobs("")] == [
            ("b", False, None),
            ("a", False, None),
        ]
        store.close()
    store = Store(tmp_path / "data")
    taken = store.take()
    assert taken and taken.id == "b" * 32
    store.close()


def test_a_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    db = sqlite3.connect(tmp_path / "data" / "jobs.sqlite3")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataUnusable, match="newer version"):
        Store(tmp_path / "data")


@pytest.mark.skipif(os.name == "nt", reason="there are no such modes")
def test_a_folder_is_made_for_its_user_alone(store: Store, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_damaged_file_of_jobs_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jobs.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(DataUnusable, match="cannot be read"):
        Store(tmp_path / "data")


def test_what_is_old_goes_and_what_has_not_ended_stays(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    old = run(store)
    waiting = store.add(REQUEST).id
    clock.time += 100
    taken = store.take()
    assert taken and taken.id == waiting
    recent = run(store)
    clock.time += 10
    assert store.prune(max_age=50, max_bytes=2**40) == 1
    with pytest.raises(NotFound):
        store.job(old)
    assert store.job(waiting).status == "running"
    assert {name.split("-")[0] for name in files(store, tmp_path)} == {recent}


def test_past_the_size_the_oldest_go_first(store: Store, clock: Clock, tmp_path: Path) -> None:
    jobs, sizes = [], []
    for _ in range(4):
        jobs.append(run(store))
        sizes.append(size_of(store, tmp_path))
        clock.time += 1
    assert store.prune(max_age=1e9, max_bytes=sizes[1]) == 2
    assert [job.id for job in store.jobs("")] == [jobs[3], jobs[2]]
    assert len(files(store, tmp_path)) == 4
    assert store.prune(max_age=1e9, max_bytes=0) == 2


DAY = 24 * 60 * 60.0


@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_is_wrong_for_a_moment_deletes_nothing(
    store: Store, open_store: Callable[[], Store], clock: Clock, restarted: bool
) -> None:
    job = run(store)
    assert store.prune(30 * DAY, 2**40) == 0
    clock.time += 31 * DAY
    if restarted:
        store = open_store()
    assert store.prune(30 * DAY, 2**40) == 0
    during = run(store)  # a job that ends meanwhile makes the wrong time no better
    clock.wait(60)
    assert store.prune(30 * DAY, 2**40) == 0
    clock.time -= 31 * DAY
    for _ in range(200):
        clock.wait(60)
        assert store.prune(30 * DAY, 2**40) == 0
    clock.wait(15 * DAY)
    assert store.prune(30 * DAY, 2**40) == 0
    clock.wait(STEADY_SECONDS)
    assert {store.job(job).status, store.job(during).status} == {"succeeded"}


def test_what_ended_while_the_clock_was_ahead_does_not_live_for_ever(
    store: Store, clock: Clock
) -> None:
    clock.time += 10_000 * DAY
    run(store)
    clock.time -= 10_000 * DAY
    removed = 0
    for _ in range(31 * 24 + 4):
        removed += store.prune(30 * DAY, 2**40)
        clock.wait(STEADY_SECONDS)
    assert removed == 1


def test_a_clock_that_stays_where_it_jumped_to_is_believed_in_the_end(
    store: Store, clock: Clock
) -> None:
    run(store)
    clock.time += 31 * DAY
    assert store.prune(30 * DAY, 2**40) == 0
    clock.wait(STEADY_SECONDS)
    assert store.prune(30 * DAY, 2**40) == 1


def test_a_clock_that_jumps_back_makes_no_time_of_a_job_negative(
    store: Store, clock: Clock
) -> None:
    job = store.add(REQUEST).id
    clock.time -= 500
    store.take()
    clock.time -= 400
    store.fail(job, Cancelled("Stopped.", ""))
    told = store.job(job)
    assert told.started is not None and told.finished is not None
    assert told.created <= told.started <= told.finished


def test_a_webhook_is_called_after_the_clock_has_jumped_back(store: Store, clock: Clock) -> None:
    clock.time += 31 * DAY
    store.fail(
        store.add(REQUEST, terms=Terms(webhook="https://hook.example/")).id, Cancelled("", "")
    )
    clock.time -= 31 * DAY
    assert store.deliveries.wait() == 0
    [delivery] = store.deliveries.due(9)
    store.deliveries.put_off(delivery.job, 5)
    assert (store.deliveries.due(9), store.deliveries.wait()) == ([], 5)


def test_jobs_without_a_picture_are_bounded_by_the_room_too(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    for number in range(300):
        job = store.add(REQUEST).id
        store.record(job, Queued(position=number))
        store.fail(job, Cancelled("Stopped.", ""))
        clock.wait(1)
    before = size_of(store, tmp_path)
    assert store.prune(max_age=1e9, max_bytes=before // 2) > 0
    left = store.jobs("", limit=300)
    assert 0 < len(left) < 300
    assert size_of(store, tmp_path) <= before // 2
    assert left[0].created == clock.time - 1  # the newest are those that stay
    store.close()
    assert (tmp_path / "data" / "jobs.sqlite3").stat().st_size <= before // 2


def test_a_full_disk_is_said_and_what_was_kept_stays(
    store: Store, open_store: Callable[[], Store]
) -> None:
    job = run(store)
    with store._db.reading() as db:
        [pages] = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="no room left"):
        for _ in range(1000):
            store.add(REQUEST)
    kept = len(store.jobs("", limit=2000))
    store = open_store()
    assert len(store.jobs("", limit=2000)) == kept
    assert store.job(job).status == "succeeded"


def test_an_image_that_cannot_be_written_leaves_no_row(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.add(REQUEST).id
    store.take()

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(DiskFull):
        for event in events_of(REQUEST):
            store.record(job, event)
    assert store.job(job).images == ()
    assert not any(event.type in ("image", "done") for event in store.events(job))


def test_a_request_of_weights_that_are_gone_can_still_be_read(store: Store) -> None:
    job = store.add(REQUEST).id
    with store._db.transaction() as db:
        db.execute("""UPDATE jobs SET request = '{"checkpoint": "gone"}'""")
    assert store.job(job).request == {"checkpoint": "gone"}


def test_a_done_event_carries_the_whole_result(store: Store) -> None:
    job = run(store)
    last = store.events(job, limit=100)[-1]
    assert Done.model_validate(last.data).result.seeds == (7, 8)
    assert store.events(job)[0].data == Queued(position=0).model_dump()
