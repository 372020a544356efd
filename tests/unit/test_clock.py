"""The clock ticks while something waits."""

from __future__ import annotations

import threading

from support.waiting import eventually
from webhook.clock import Clock


class Waits:
    """Counts the ticks; something waits for ``needed`` of them."""

    def __init__(self, needed: int) -> None:
        self.ticks = 0
        self.needed = needed
        self.threads: set[threading.Thread] = set()

    def tick(self) -> bool:
        self.threads.add(threading.current_thread())
        self.ticks += 1
        return self.ticks < self.needed


def test_clock_ticks_until_nothing_waits() -> None:
    """Then its thread ends. The last tick is for a wait that began meanwhile."""
    waits = Waits(needed=3)
    Clock(waits.tick).start()
    eventually(lambda: waits.ticks == 4)
    [thread] = waits.threads
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert waits.ticks == 4


def test_clock_started_twice_has_one_thread() -> None:
    waits = Waits(needed=3)
    clock = Clock(waits.tick)
    for _ in range(10):
        clock.start()
    eventually(lambda: waits.ticks == 4)
    assert len(waits.threads) == 1


def test_stopped_clock_starts_again() -> None:
    waits = Waits(needed=1)
    clock = Clock(waits.tick)
    clock.start()
    eventually(lambda: waits.ticks == 2)
    waits.needed = 5
    clock.start()
    eventually(lambda: waits.ticks == 6)


def test_wait_that_begins_as_the_clock_stops_is_seen() -> None:
    """It found a running clock, so it did not start one."""
    answers = iter([False, True, True, False, False])
    ticks: list[bool] = []

    def tick() -> bool:
        ticks.append(next(answers))
        return ticks[-1]

    Clock(tick).start()
    eventually(lambda: len(ticks) == 5)
