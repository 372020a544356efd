"""Group commit: items of several threads are written in batches."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from support.waiting import WAIT_TIMEOUT, eventually
from webhook.ledger import group_commit
from webhook.ledger.errors import BatchRejectedError
from webhook.ledger.group_commit import GroupCommit


class Killed(BaseException):
    """Ends a greenlet or a thread, like GreenletExit."""


class Disk:
    """Records each batch, and returns its items in upper case once ``may_write`` is released."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_write = threading.Semaphore(0)

    def write(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        assert self.may_write.acquire(timeout=WAIT_TIMEOUT)
        if "bad" in items:
            raise BatchRejectedError
        if "fatal" in items:
            raise ConnectionError
        if len(items) > 1 and "killed" in items:
            raise Killed
        return [item.upper() for item in items]


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def send(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Future[str]]]]:
    """Write each item from a separate thread; the others arrive during the write of the first."""
    monkeypatch.setattr(group_commit, "WAIT_TIMEOUT", WAIT_TIMEOUT)
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor(max_workers=200) as threads:

        def send(*items: str) -> list[Future[str]]:
            first = threads.submit(write_together, items[0])
            eventually(lambda: disk.batches)
            others = [threads.submit(write_together, item) for item in items[1:]]
            eventually(lambda: len(write_together._waiting) == len(others))  # noqa: SLF001 - the queue is not public
            disk.may_write.release(100)
            return [first, *others]

        yield send


def results(futures: list[Future[str]]) -> list[str | type[BaseException]]:
    return [type(error) if (error := future.exception(WAIT_TIMEOUT)) else future.result() for future in futures]


def test_items_queued_during_a_write_form_the_next_batch(disk: Disk, send: Callable[..., list[Future[str]]]) -> None:
    results(send("a", "b", "c", "d"))
    assert [disk.batches[0], sorted(disk.batches[1])] == [["a"], ["b", "c", "d"]]
    assert len(disk.batches) == 2


def test_item_of_a_batch_gets_its_own_result(send: Callable[..., list[Future[str]]]) -> None:
    assert results(send("a", "b", "c", "d")) == ["A", "B", "C", "D"]


def test_rejected_item_does_not_fail_the_rest_of_its_batch(send: Callable[..., list[Future[str]]]) -> None:
    """After a rejected batch, each item is written alone, and only the bad one fails."""
    assert results(send("a", "b", "bad", "d")) == ["A", "B", BatchRejectedError, "D"]


def test_batch_after_a_connection_error_is_not_split(disk: Disk, send: Callable[..., list[Future[str]]]) -> None:
    """Without a connection, writing each item alone would only take longer."""
    assert results(send("a", "b", "fatal")) == ["A", ConnectionError, ConnectionError]
    assert len(disk.batches) == 2


def test_items_of_a_killed_writer_are_written_alone(send: Callable[..., list[Future[str]]]) -> None:
    """The killed thread returns no result for the other items of its batch."""
    outcomes = results(send("a", "b", "killed", "d"))
    assert outcomes.count(Killed) == 1
    assert all(
        result in (expected, Killed) for result, expected in zip(outcomes, ("A", "B", "KILLED", "D"), strict=True)
    )


def test_items_over_the_batch_size_form_several_batches(disk: Disk, send: Callable[..., list[Future[str]]]) -> None:
    """A burst of deliveries must not become one very long transaction."""
    results(send("a", *map(str, range(150))))
    assert [len(batch) for batch in disk.batches] == [1, 100, 50]


def test_items_behind_a_slow_batch_are_written_in_parallel(disk: Disk) -> None:
    """A batch that waits for a lock delays later items only briefly."""
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(write_together, "slow")
        eventually(lambda: disk.batches)
        late = threads.submit(write_together, "late")
        eventually(lambda: disk.batches == [["slow"], ["late"]])
        disk.may_write.release(2)
        assert results([slow, late]) == ["SLOW", "LATE"]


class Gathering:
    """Holds a writer while it lets others join the queue, until ``may_end`` is set; then it may be killed."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.kills = False

    def __call__(self, _: float) -> None:
        self.began.set()
        assert self.may_end.wait(WAIT_TIMEOUT)
        if self.kills:
            self.kills = False
            raise Killed


@pytest.fixture
def gathering(monkeypatch: pytest.MonkeyPatch) -> Gathering:
    """Hold the writers. Nothing is written because of a timeout."""
    gathering = Gathering()
    monkeypatch.setattr(group_commit, "sleep", gathering)
    monkeypatch.setattr(group_commit, "WAIT_TIMEOUT", 2 * WAIT_TIMEOUT)
    return gathering


def start(threads: ThreadPoolExecutor, write_together: GroupCommit[str, str], *items: str) -> list[Future[str]]:
    """Write each item from a separate thread, in this order in the queue."""
    futures = []
    for item in items:
        queued = len(write_together._waiting)  # noqa: SLF001 - the queue is not public
        futures.append(threads.submit(write_together, item))
        eventually(lambda length=queued + 1: len(write_together._waiting) == length)  # noqa: SLF001
    return futures


def test_items_that_arrive_while_gathering_join_the_batch(disk: Disk, gathering: Gathering) -> None:
    """The queue is taken when the other threads have run, not before."""
    disk.may_write.release()
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor() as threads:
        futures = start(threads, write_together, "a", "b", "c")
        gathering.may_end.set()
        assert results(futures) == ["A", "B", "C"]
    assert disk.batches == [["a", "b", "c"]]


def test_thread_killed_while_gathering_lets_the_next_write(disk: Disk, gathering: Gathering) -> None:
    """Otherwise every later item would wait for its timeout. The killed thread's item is not written."""
    gathering.kills = True
    disk.may_write.release(2)
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor() as threads:
        futures = start(threads, write_together, "killed", "b", "c")
        gathering.may_end.set()
        assert results(futures) == [Killed, "B", "C"]
        assert results([threads.submit(write_together, "d")]) == ["D"]
    assert disk.batches == [["b", "c"], ["d"]]


def test_batch_taken_by_late_threads_is_not_written_again(
    disk: Disk, gathering: Gathering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late thread can write the item of a thread that still gathers."""
    monkeypatch.setattr(group_commit, "WAIT_TIMEOUT", 0.1)
    disk.may_write.release()
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor() as threads:
        first = start(threads, write_together, "a")
        assert gathering.began.wait(WAIT_TIMEOUT)
        monkeypatch.setattr(group_commit, "sleep", lambda _: None)
        late = threads.submit(write_together, "late")
        assert late.result(WAIT_TIMEOUT) == "LATE"
        gathering.may_end.set()
        assert results(first) == ["A"]
    assert disk.batches == [["a", "late"]]


KILLED_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent
from webhook.ledger import group_commit
group_commit.WAIT_TIMEOUT = 3600
write = group_commit.GroupCommit(lambda items: items)
for turns in range(6):
    greenlets = [gevent.spawn(write, item) for item in "abc"]
    for _ in range(turns):
        gevent.sleep(1e-6)
    greenlets[0].kill()
    gevent.joinall(greenlets, timeout=10, raise_error=True)
    assert [each.value for each in greenlets[1:]] == ["b", "c"], (turns, greenlets)
    assert write("d") == "d"
print("written")
"""


def test_greenlet_killed_at_any_turn_lets_others_write() -> None:
    """GreenletExit can arrive before, during and after gathering."""
    command = [sys.executable, "-c", KILLED_GREENLETS]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=WAIT_TIMEOUT)
    assert (done.stdout, done.stderr) == ("written\n", "")
