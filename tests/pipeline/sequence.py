"""Commands in any order, killed anywhere, and what readers must see after each."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmlora.nights.load import score
from mmlora.pipeline.backfill import backfill
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.erase import erase
from mmlora.pipeline.gc import gc
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.publish import publish
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.shadow import score_shadow
from mmlora.pipeline.unpublish import restore, unpublish
from mmlora.pipeline.verify import verify
from mmlora.workspace import open_workspace
from tests.faults import Kill, let_time_pass, run_and_kill
from tests.pipeline.readers_model import Event, Key, Load, Model, Rows, Seen, by_key
from tests.pipeline.sequence_start import DOMAINS, FIRST, LAST

SEEN = sa.text(
    "SELECT domain_id, score_date, load_id, user_id, item_id, score, position FROM scores_published "
    "ORDER BY domain_id, score_date, user_id, position"
)

days = st.integers(0, (LAST - FIRST).days).map(lambda n: FIRST + timedelta(days=n))
domains = st.sampled_from(DOMAINS)
kills = st.one_of(
    st.none(),
    st.builds(Kill, step=st.integers(0, 120)),
    st.builds(Kill, seconds=st.floats(0.001, 1.0)),
)
some = st.integers(0, 1000)


class Sequence(RuleBasedStateMachine):
    """Commands on a workspace, and their effect on the model."""

    begin: ClassVar[Callable[[], tuple[Path, Model]]]

    def __init__(self) -> None:
        super().__init__()
        self.home, self.model = type(self).begin()
        self.erased: set[str] = set()

    # Commands

    @rule(on=days, domain=domains, kill=kills)
    def score_one(self, on: date, domain: str, kill: Kill | None) -> None:
        if on > self.model.last_day + timedelta(days=1):
            return
        expected = self.expected(domain, on)
        made: list[str] = []
        if not self.killed(kill, lambda: made.append(score(on, domain)), {}):
            self.take_new_loads({(domain, on): expected})
            assert all(self.model.loads[load_id].state == "staged" for load_id in made)
        else:
            self.take_new_loads({(domain, on): expected})

    @precondition(lambda self: self.model.staged)
    @rule(n=some, kill=kills)
    def publish(self, n: int, kill: Kill | None) -> None:
        load = self.model.staged[n % len(self.model.staged)]
        after = {load.key: load.rows}
        if self.killed(kill, lambda: publish(load.load_id), after) and not self.is_state(load, "published"):
            return
        self.model.publish(load)

    @rule(on=days, domain=st.none() | domains, kill=kills)
    def score_and_publish(self, on: date, domain: str | None, kill: Kill | None) -> None:
        if on > self.model.last_day + timedelta(days=1):
            return
        names = DOMAINS if domain is None else (domain,)
        after = {(name, on): self.expected(name, on) for name in names}
        killed = self.killed(kill, lambda: self.done(score_and_publish(on, domain=domain).loads), after)
        self.take_new_loads(after, complete=not killed)

    @rule(
        start=days, more=st.integers(0, 3), names=st.sets(domains, min_size=1), now=st.booleans(), kill=kills
    )
    def backfill(self, start: date, more: int, names: set[str], now: bool, kill: Kill | None) -> None:
        end = min(start + timedelta(days=more), self.model.last_day + timedelta(days=1))
        if start > end:
            return
        known = datetime.now(UTC) if now else None
        after = {
            (name, start + timedelta(days=n)): self.expected(name, start + timedelta(days=n), known)
            for name in names
            for n in range((end - start).days + 1)
        }
        as_of: Any = "now" if now else "then"
        killed = self.killed(
            kill, lambda: self.done(backfill(sorted(names), start, end, known_as_of=as_of).loads), after
        )
        self.take_new_loads(after, known)
        for name, on in after if not killed else ():
            assert self.model.published[name, on].version == self.model.champion(name)
            assert now or self.model.published[name, on].known is None, "on what was known then"

    @precondition(lambda self: self.model.published)
    @rule(n=some, kill=kills)
    def unpublish(self, n: int, kill: Kill | None) -> None:
        key = sorted(self.model.published)[n % len(self.model.published)]
        load = self.model.published[key]
        killed = self.killed(kill, lambda: unpublish(*key, reason="a test"), {key: ()})
        if not killed or self.is_state(load, "superseded"):
            self.model.unpublish(key)

    @precondition(lambda self: self.model.restorable)
    @rule(n=some, kill=kills)
    def restore(self, n: int, kill: Kill | None) -> None:
        load = self.model.restorable[n % len(self.model.restorable)]
        killed = self.killed(kill, lambda: restore(load.load_id), {load.key: load.rows})
        if not killed or self.is_state(load, "published"):
            self.model.show(load)

    @rule(keep_days=st.integers(1, 4), keep_loads=st.integers(0, 2), kill=kills)
    def gc(self, keep_days: int, keep_loads: int, kill: Kill | None) -> None:
        last = max((on for _, on in self.model.published), default=FIRST)
        old: dict[Key, Rows] = {
            key: () for key in self.model.published if key[1] < last - timedelta(days=keep_days)
        }

        def run() -> object:
            return gc(keep_days=keep_days, keep_loads=keep_loads)

        if self.killed(kill, run, old):
            left = {key[1] for key in self.shown()}
            assert all(key in self.shown() or key[1] not in left for key in old), "a part of a night went"
            run()
        self.model.free(keep_days, keep_loads)

    @precondition(lambda self: len(self.erased) < 5)
    @rule(n=some, kill=kills)
    def erase(self, n: int, kill: Kill | None) -> None:
        users = sorted({event.user for event in self.model.events})
        user = users[n % len(users)]
        let_time_pass()
        after = {key: load.without(user) for key, load in self.model.published.items()}
        if self.killed(kill, lambda: erase([user], reason="a test"), after):
            erase([user], reason="a test")
        self.erased.add(user)
        self.model.erase(user)

    @rule(version=st.integers(0, 1), domain=st.none() | domains, kill=kills)
    def promote(self, version: int, domain: str | None, kill: Kill | None) -> None:
        name = sorted(self.model.scores)[version]

        def run() -> object:
            return promote(name, domain=domain, accept_below_baseline=True, accept_worse=True)

        if not self.killed(kill, run, {}) or self.decisions() > len(self.model.decisions):
            self.model.promote(name, domain)

    @rule(domain=st.none() | domains, kill=kills)
    def rollback(self, domain: str | None, kill: Kill | None) -> None:
        if self.model.before(domain) is None:
            return
        killed = self.killed(kill, lambda: rollback(domain=domain), {})
        if not killed or self.decisions() > len(self.model.decisions):
            self.model.rollback(domain)

    @precondition(lambda self: self.model.last_day < LAST - timedelta(days=1))
    @rule(seed=some, kill=kills)
    def import_day(self, seed: int, kill: Kill | None) -> None:
        """A day's rows come in time."""
        rng, day = np.random.default_rng(seed), self.model.last_day + timedelta(days=1)
        users = sorted({event.user for event in self.model.events})
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        moments = [midnight + timedelta(seconds=int(s)) for s in rng.choice(86_400, 30, replace=False)]
        events = [
            Event(str(rng.choice(users)), int(rng.choice(self.model.items)), DOMAINS[n % 3], at, n % 2, at)
            for n, at in enumerate(moments)
        ]
        self.bring(events, kill)

    @rule(n=some, seed=some, kill=kills)
    def import_late(self, n: int, seed: int, kill: Kill | None) -> None:
        """A row of an earlier day comes late, or an earlier row is corrected."""
        now, event = datetime.now(UTC), self.model.events[-1 - n]
        if seed % 2:
            self.bring([event._replace(label=1 - event.label, known=now)], kill)
            return
        moved = event.at.replace(microsecond=1 + seed)
        if moved.date() < self.model.last_day:
            self.bring([event._replace(at=moved, label=1, known=now)], kill)

    @rule(on=days, domain=domains, version=st.integers(0, 1), kill=kills)
    def score_shadow(self, on: date, domain: str, version: int, kill: Kill | None) -> None:
        """Another model scores a night beside the published one."""
        if on <= self.model.last_day + timedelta(days=1):
            name = sorted(self.model.scores)[version]
            self.killed(kill, lambda: score_shadow(on, name, domain=domain), {})

    @rule(on=days, domain=domains)
    def fail(self, on: date, domain: str) -> None:
        """A night fails: its table of users isn't there."""
        with pytest.MonkeyPatch.context() as broken:
            broken.setenv("MMLORA_CANDIDATES__USERS", "/nowhere.parquet")
            outcome = score_and_publish(on, domain=domain, allow_stale=True)
        assert [load.state for load in outcome.loads] == ["failed"]

    # What readers see

    @invariant()
    def readers_see_what_they_must(self) -> None:
        assert self.shown() == self.model.seen()
        assert self.shown("scores_latest") == self.model.latest()
        users = {row[0] for _, rows in self.shown().values() for row in rows}
        assert not users & self.erased
        for domain in {key[0] for key in self.model.latest()}:
            with read_scores(domain) as reader:
                assert by_key(reader.read_all().to_pylist()).items() <= self.model.latest().items()

    def teardown(self) -> None:
        if (error := sys.exc_info()[1]) is not None:  # a replay may be killed elsewhere and hide it
            traceback.print_exception(error)
            return
        assert verify().faults == ()
        os.chdir(self.home.parents[1])
        shutil.rmtree(self.home.parent)

    # How commands are run

    def killed(self, kill: Kill | None, action: Callable[[], object], after: Mapping[Key, Rows]) -> bool:
        """Run a command, perhaps in a process that dies; a night is as before or as ``after`` meanwhile."""
        if kill is None:
            action()
            return False
        before, polled = self.model.seen(), list[Seen]()
        died = run_and_kill(action, kill, self.home, lambda: polled.append(self.shown()))
        for seen in (*polled, self.shown()):
            for key in {*seen, *before}:
                rows = seen.get(key, ("", ()))[1]
                assert rows in (before.get(key, ("", ()))[1], after.get(key)), f"{key} is neither old nor new"
        return died

    def shown(self, view: str = "scores_published") -> Seen:
        query = sa.text(str(SEEN).replace("scores_published", view))
        with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
            return by_key([dict(row._mapping) for row in connection.execute(query)])

    def expected(self, domain: str, on: date, known: datetime | None = None) -> Rows:
        return self.model.rows(domain, on, self.model.champion(domain), known)

    def done(self, loads: Any) -> None:
        assert [load.reason for load in loads if load.state != "published"] == []

    def take_new_loads(
        self, expected: Mapping[Key, Rows], known: datetime | None = None, *, complete: bool = False
    ) -> None:
        """Have the model know the loads that a command made, and what became of them.

        Args:
            expected: the rows that each domain and date should have got.
            known: up to when the data was known.
            complete: whether each of them must have been published.
        """
        with open_workspace().open_warehouse() as warehouse:
            for key, rows in expected.items():
                new = [
                    load
                    for load in reversed(warehouse.loads(domain=key[0], score_date=key[1]))
                    if load.load_id not in self.model.loads and load.state in ("staged", "published")
                ]
                assert len(new) <= 1 and (new or not complete)
                for load in new:
                    assert load.rows == len(rows)
                    ours = Load(load.load_id, key, load.model_version, rows, known=known)
                    self.model.add(ours)
                    if load.state == "published":
                        self.model.publish(ours)

    def bring(self, events: list[Event], kill: Kill | None) -> None:
        """Import rows; an import that was killed is run again."""
        names = ("user_id", "item_id", "domain_id", "event_timestamp", "label")
        path = self.home.parent / "delivery.parquet"
        pq.write_table(pa.table({name: [event[n] for event in events] for n, name in enumerate(names)}), path)

        def run() -> object:
            return import_tables(path, imported_at=max(event.known for event in events))

        if self.killed(kill, run, {}):
            run()
        self.model.events += events

    def is_state(self, load: Load, state: str) -> bool:
        with open_workspace().open_warehouse() as warehouse:
            return warehouse.load(load.load_id).state == state

    def decisions(self) -> int:
        with open_workspace().open_warehouse() as warehouse, warehouse.database.reading() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM promotions")).scalar_one())
