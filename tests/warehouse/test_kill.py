"""Killed anywhere, a publication leaves readers with the old load, and the next try completes it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from threading import Thread

import pytest
import sqlalchemy as sa

from mmlora.errors import MmloraError
from mmlora.schema import IdTypes
from mmlora.warehouse.warehouse import Warehouse


class PowerCut(BaseException):
    """What nobody catches."""


class CuttableWriter:
    """The real writer, on a power supply that fails after some batches."""

    def __init__(self, database):
        self.real = database.writer()
        self.batches_left = None

    def write(self, load, batches):
        self.real.write(load, self._until_the_cut(batches))

    def _until_the_cut(self, batches):
        for batch in batches:
            if self.batches_left == 0:
                raise PowerCut
            if self.batches_left is not None:
                self.batches_left -= 1
            yield batch
        if self.batches_left == 0:
            raise PowerCut


class Fuse:
    """Cuts the power before the n-th statement or commit on a database."""

    def __init__(self, database):
        self.left = None
        for event in ("before_cursor_execute", "commit"):
            sa.event.listen(database.engine, event, self._burn)

    def _burn(self, *_args):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise PowerCut


def test_readers_see_the_old_load_after_a_cut_before_any_statement(desk):
    fuse = Fuse(desk.warehouse.database)
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    for steps in range(100):
        fuse.left = steps
        try:
            desk.warehouse.publish(load, files)
        except PowerCut:
            fuse.left = None
            assert desk.seen() == desk.seen_by_sql() == desk.rows(1), f"after {steps} steps"
        else:
            break

    fuse.left = None
    assert steps > 10
    assert desk.seen() == desk.seen_by_sql() == desk.rows(2)
    assert desk.sql("SELECT count(*) FROM scores") == [(24,)]


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_readers_see_the_old_load_after_a_cut_between_batches(desk, batches):
    writer = CuttableWriter(desk.warehouse.database)
    desk.warehouse = Warehouse(desk.warehouse.database, desk.warehouse.ids, writer=writer)
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    writer.batches_left = batches
    with pytest.raises(PowerCut):
        desk.warehouse.publish(load, files)
    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)

    writer.batches_left = None
    desk.warehouse.publish(load, files)
    assert desk.seen() == desk.seen_by_sql() == desk.rows(2)


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy as sa
from mmlora.warehouse.warehouse import Warehouse

url, load_id, moment, *files = sys.argv[1:]
die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def dying():
    yield Path(files[0])
    yield Path(files[1])
    die()

warehouse = Warehouse.open(url)

@sa.event.listens_for(warehouse.database.engine, "after_cursor_execute")
def pointer_moved(connection, cursor, statement, *rest):
    if statement.startswith("INSERT INTO publications"):
        die()

load = warehouse.load(load_id)
warehouse.publish(load, dying() if moment == "rows" else [Path(file) for file in files])
"""


@pytest.mark.parametrize("moment", ["rows", "pointer"])
def test_kill_9_in_a_publication(desk, url, moment):
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    command = [sys.executable, "-W", "ignore", "-c", KILLED, url, load.load_id, moment, *map(str, files)]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    assert desk.seen() == desk.seen_by_sql() == desk.rows(1)

    with Warehouse.open(url, ids=IdTypes()) as another:
        assert another.publish(another.load(load.load_id), files).state == "published"
    assert desk.seen() == desk.seen_by_sql() == desk.rows(2)


def test_concurrent_publications_of_a_load_publish_it_once(desk, url):
    desk.publish(desk.rows(1))
    load, files = desk.stage(desk.rows(2))

    def publish_too():
        with Warehouse.open(url) as another, suppress(MmloraError):
            another.publish(load, files)

    other = Thread(target=publish_too)

    def files_while_another_publishes():
        yield files[0]
        other.start()
        other.join(timeout=0.5)  # it is done, or waits for us
        yield from files[1:]

    with suppress(MmloraError):  # either may lose; what is published is whole
        desk.warehouse.publish(load, files_while_another_publishes())
    other.join()
    assert desk.seen() == desk.seen_by_sql()
    assert desk.seen() in (desk.rows(1), desk.rows(2))

    assert desk.warehouse.publish(load, files).state == "published"
    assert desk.seen() == desk.seen_by_sql() == desk.rows(2)
    assert desk.sql("SELECT count(*) FROM scores") == [(24,)]
