"""Metrics directories left over by gunicorn, and which of them a start removes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CREATE = "import os, sys; from webhook.observability.multiprocess import create_directory; "
AS_ANOTHER_USER = "os.getuid = lambda: 54321; "


def start(parent: Path, setup: str = "") -> None:
    """Create gunicorn's directory in ``parent``, in a separate process."""
    program = f"{CREATE}{setup}create_directory(sys.argv[1], 1)"
    subprocess.run([sys.executable, "-c", program, str(parent)], check=True, timeout=30)


@pytest.fixture
def leftover(tmp_path: Path) -> Path:
    """An unlocked directory that was last used an hour ago."""
    directory = tmp_path / "webhook-metrics-leftover"
    directory.mkdir()
    _age(directory)
    return directory


def _age(path: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def test_start_removes_a_leftover_of_the_same_user(tmp_path: Path, leftover: Path) -> None:
    start(tmp_path)
    assert not leftover.exists()


def test_start_keeps_a_leftover_of_another_user(tmp_path: Path, leftover: Path) -> None:
    """In /tmp, another user could otherwise have a directory deleted, or make the start fail."""
    start(tmp_path, AS_ANOTHER_USER)
    assert leftover.exists()


def test_start_keeps_a_new_directory_that_is_not_locked_yet(tmp_path: Path, leftover: Path) -> None:
    os.utime(leftover)
    start(tmp_path)
    assert leftover.exists()


USE_SLOT = """
from webhook.observability.multiprocess import use_slot
from prometheus_client import CollectorRegistry, Counter
directory = create_directory(sys.argv[1], 1)
counter = Counter("deliveries", "Deliveries.", registry=CollectorRegistry())
use_slot(1, directory)
counter.inc()
from prometheus_client.mmap_dict import MmapedDict
for slot in (0, 1):
    print([value for _, value, _, _ in MmapedDict.read_all_values_from_file(f"{directory}/counter_{slot}.db")])
"""


def test_process_counts_in_the_files_of_its_slot(tmp_path: Path) -> None:
    """Metrics are created before the fork. Two processes that wrote to the same file would lose counts."""
    command = [sys.executable, "-c", CREATE + USE_SLOT, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=30, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[0.0]", "[1.0]"]
