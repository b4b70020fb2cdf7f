"""A ranking job that reads the views again and again, and knows what they must hold, whatever runs beside."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Self

Night = tuple[str, str]
"""A domain and a date."""
PUBLISHED, LATEST = (
    "SELECT domain_id, score_date, load_id, model_version, user_id, item_id, score, position "
    f"FROM {view} ORDER BY 1, 2, 5, 8, 6"
    for view in ("scores_published", "scores_latest")
)
COUNTS = (
    "SELECT publications.domain_id, publications.score_date, score_loads.rows FROM publications "
    "JOIN score_loads ON score_loads.load_key = publications.load_key"
)


@dataclass(frozen=True)
class Published:
    """What readers get of a night: its load and model, a hash of its scores, and how many they are."""

    load: str
    model: str
    content: str
    rows: int


@dataclass
class Reader:
    """The ranking job.

    Attributes:
        connect: opens a connection that commits by itself.
        begin: the statement that begins a transaction with one snapshot.
        nights: what was read last.
        contents: the scores of each night by each model, which never change.
        reads: how often it has read.
    """

    connect: Callable[[], Any]
    begin: str
    nights: dict[Night, Published] = field(default_factory=dict)
    contents: dict[tuple[Night, str], str] = field(default_factory=dict)
    reads: int = 0
    _one_at_a_time: Lock = field(default_factory=Lock)

    @classmethod
    def of_sqlite(cls, path: Path) -> Self:
        """Read a file of SQLite."""
        return cls(lambda: sqlite3.connect(path, timeout=60, isolation_level=None), "BEGIN")

    @classmethod
    def of_postgresql(cls, url: str) -> Self:
        """Read a database of PostgreSQL."""
        import psycopg

        return cls(lambda: psycopg.connect(url, autocommit=True), "BEGIN ISOLATION LEVEL REPEATABLE READ")

    def read(self) -> dict[Night, Published]:
        """Read the views in one snapshot; fail if a night is gone, in part, twice or has other scores."""
        with self._one_at_a_time, closing(self.connect()) as connection:
            connection.execute(self.begin)
            published, latest, counts = (
                [tuple(map(str, row)) for row in connection.execute(query).fetchall()]
                for query in (PUBLISHED, LATEST, COUNTS)
            )
            nights = {
                night: self._night(night, list(rows))
                for night, rows in groupby(published, lambda row: row[:2])
            }
            assert self.nights.keys() <= nights.keys(), f"gone: {self.nights.keys() - nights.keys()}"
            assert {row[:2]: row[2] for row in counts} == {
                night: str(each.rows) for night, each in nights.items()
            }, "a load is published in part"
            newest = {domain: day for domain, day in sorted(nights)}
            assert latest == [row for row in published if row[1] == newest[row[0]]], "the latest are others"
            self.nights, self.reads = nights, self.reads + 1
            return nights

    def _night(self, night: Night, rows: Sequence[tuple[str, ...]]) -> Published:
        ((load, model),) = {row[2:4] for row in rows}
        assert len({row[4:6] for row in rows}) == len(rows), f"{night} has a pair twice"
        content = hashlib.sha256(repr([row[4:] for row in rows]).encode()).hexdigest()
        assert self.contents.setdefault((night, model), content) == content, f"{night} has other scores"
        return Published(load, model, content, len(rows))

    @contextmanager
    def polling(self) -> Iterator[None]:
        """Read all the while, and fail at the end if a read was wrong."""
        stop, wrong = Event(), []

        def poll() -> None:
            try:
                while not stop.wait(0.05):
                    self.read()
            except BaseException as error:
                wrong.append(error)

        thread = Thread(target=poll)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if wrong:
            raise wrong[0]
