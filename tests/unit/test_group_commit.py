"""Items of several threads, written together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from support.waiting import PATIENCE, eventually
from webhook.ledger import group_commit
from webhook.ledger.errors import BatchRejectedError
from webhook.ledger.group_commit import GroupCommit


class Killed(BaseException):
    """What ends a greenlet or a thread."""


class Disk:
    """Writes text as capitals once it is let; says which items came together."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.may_write = threading.Semaphore(0)

    def write(self, items: Sequence[str]) -> list[str]:
        self.batches.append(list(items))
        assert self.may_write.acquire(timeout=PATIENCE)
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
    """Have items written, each by a thread of its own: the first is being written when the others come."""
    monkeypatch.setattr(group_commit, "WAIT_TIMEOUT", PATIENCE)
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor(max_workers=200) as threads:

        def send(*items: str) -> list[Future[str]]:
            first = threads.submit(write_together, items[0])
            eventually(lambda: disk.batches)
            others = [threads.submit(write_together, item) for item in items[1:]]
            eventually(lambda: len(write_together._waiting) == len(others))  # noqa: SLF001 - no other way to know
            disk.may_write.release(100)
            return [first, *others]

        yield send


def results(futures: list[Future[str]]) -> list[str | type[BaseException]]:
    return [type(error) if (error := future.exception(PATIENCE)) else future.result() for future in futures]


def test_items_that_come_during_a_write_are_written_together(
    disk: Disk, send: Callable[..., list[Future[str]]]
) -> None:
    """What queues up while a batch is under way is the next batch."""
    results(send("a", "b", "c", "d"))
    assert [disk.batches[0], sorted(disk.batches[1])] == [["a"], ["b", "c", "d"]]
    assert len(disk.batches) == 2


def test_item_of_a_batch_gets_its_own_result(send: Callable[..., list[Future[str]]]) -> None:
    """Nobody gets a neighbour's result."""
    assert results(send("a", "b", "c", "d")) == ["A", "B", "C", "D"]


def test_item_that_is_rejected_takes_no_neighbour_down(send: Callable[..., list[Future[str]]]) -> None:
    """After a rejected batch each item is written alone, and only the bad one fails."""
    assert results(send("a", "b", "bad", "d")) == ["A", "B", BatchRejectedError, "D"]


def test_batch_that_failed_for_all_is_not_tried_item_by_item(
    disk: Disk, send: Callable[..., list[Future[str]]]
) -> None:
    """Without a connection to be had, trying each alone would only take longer."""
    assert results(send("a", "b", "fatal")) == ["A", ConnectionError, ConnectionError]
    assert len(disk.batches) == 2


def test_item_whose_batch_lost_its_writer_is_written_alone(send: Callable[..., list[Future[str]]]) -> None:
    """Whoever wrote for all was ended: that is no answer to anybody else."""
    told = results(send("a", "b", "killed", "d"))
    assert told.count(Killed) == 1
    assert all(result in (wanted, Killed) for result, wanted in zip(told, ("A", "B", "KILLED", "D"), strict=True))


def test_more_items_than_a_batch_holds_go_in_several(disk: Disk, send: Callable[..., list[Future[str]]]) -> None:
    """A flood does not become one endless transaction."""
    results(send("a", *map(str, range(150))))
    assert [len(batch) for batch in disk.batches] == [1, 100, 50]


def test_items_behind_a_slow_batch_go_beside_it(disk: Disk) -> None:
    """A batch that waits for somebody's lock does not hold up those after it for long."""
    write_together = GroupCommit(disk.write)
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(write_together, "slow")
        eventually(lambda: disk.batches)
        late = threads.submit(write_together, "late")
        eventually(lambda: disk.batches == [["slow"], ["late"]])
        disk.may_write.release(2)
        assert results([slow, late]) == ["SLOW", "LATE"]
