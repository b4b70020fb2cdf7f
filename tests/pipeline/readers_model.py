"""What readers must see after any sequence of commands, in plain Python, without a line of mmlora.

It knows the interactions, the score that each model gives each pair, and the rules of a load's life, and
predicts the rows of each published domain and date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

import numpy as np

Key = tuple[str, date]
Row = tuple[str, int, float, int]
Rows = tuple[Row, ...]
Seen = dict[Key, tuple[str, Rows]]
"""By domain and date: the load, and its rows (user, item, score, position) by user and position."""

TOP_K, WINDOW = 5, timedelta(days=30)


class Event(NamedTuple):
    """A version of an interaction; one of the same key that became known later replaces it."""

    user: str
    item: int
    domain: str
    at: datetime
    label: int
    known: datetime

    @property
    def key(self) -> tuple[str, int, str, datetime]:
        return self[:4]


@dataclass
class Load:
    """A load: ``shown`` counts the moves of pointers, and is that of the last move to this load (0: none)."""

    load_id: str
    key: Key
    version: str
    rows: Rows
    state: Literal["staged", "published", "superseded", "failed"] = "staged"
    known: datetime | None = None
    shown: int = 0
    freed: bool = False

    @property
    def attempt(self) -> int:
        return int(self.load_id.split("-")[3])

    def without(self, user: str) -> Rows:
        return tuple(row for row in self.rows if row[0] != user)


class Decision(NamedTuple):
    """A promotion; ``in_force`` is its number, or that of the decision that a rollback restores."""

    domain: str | None
    version: str
    in_force: int


@dataclass
class Model:
    """The whole state.

    Attributes:
        events: all versions, in the order in which they became known.
        scores: each pair's score, by model version.
        items: all items.
        decisions: promotions, oldest first.
        loads: all loads that were staged, by id.
        published: the load that readers get, by domain and date.
    """

    events: list[Event]
    scores: Mapping[str, Mapping[tuple[str, str, int], float]]
    items: Sequence[int]
    decisions: list[Decision]
    loads: dict[str, Load] = field(default_factory=dict)
    published: dict[Key, Load] = field(default_factory=dict)
    moves: int = 0

    @property
    def last_day(self) -> date:
        return max(event.at for event in self.events).date()

    def seen(self) -> Seen:
        """What the view ``scores_published`` must show."""
        return {key: (load.load_id, load.rows) for key, load in self.published.items() if load.rows}

    def latest(self) -> Seen:
        """What the view ``scores_latest`` must show."""
        newest = {
            domain: max(on for of, on in self.published if of == domain) for domain, _ in self.published
        }
        return {key: shown for key, shown in self.seen().items() if newest[key[0]] == key[1]}

    # Scoring

    def rows(self, domain: str, on: date, version: str, known: datetime | None = None) -> Rows:
        """Users active in the domain, on the items that they haven't clicked there: each one's best."""
        cutoff = datetime.combine(on, time(), UTC)
        current = {
            event.key: event.label
            for event in self.events
            if event.domain == domain and event.at < cutoff and event.known <= (known or cutoff)
        }
        recent = [(key, label) for key, label in current.items() if key[3] >= cutoff - WINDOW]
        clicked = {key[:2] for key, label in recent if label > 0}
        users = sorted({key[0] for key, label in recent if label >= 0})
        return tuple(row for user in users for row in self._best(domain, user, version, clicked))

    def _best(self, domain: str, user: str, version: str, clicked: set[tuple[str, int]]) -> Iterator[Row]:
        scores = self.scores[version]
        left = ((-scores[domain, user, item], item) for item in self.items if (user, item) not in clicked)
        for position, (score, item) in enumerate(sorted(left)[:TOP_K], 1):
            yield user, item, -score, position

    # A load's life

    def add(self, load: Load) -> None:
        self.loads[load.load_id] = load

    def publish(self, load: Load) -> None:
        before = self.published.get(load.key)
        if load.state == "staged" and before is not None and before.attempt > load.attempt:
            load.state = "superseded"
        elif load.state == "staged":
            self.show(load)

    def show(self, load: Load) -> None:
        """Move the pointer to a load."""
        for other in self._of(load.key):
            earlier = other.state == "staged" and other.attempt < load.attempt
            if other.state == "published" or earlier:
                other.state = "superseded"
        self.moves += 1
        load.state, load.shown = "published", self.moves
        self.published[load.key] = load

    def unpublish(self, key: Key) -> None:
        self.published.pop(key).state = "superseded"

    @property
    def restorable(self) -> list[Load]:
        return [
            load
            for load in self.loads.values()
            if load.state == "superseded" and load.shown and not load.freed
        ]

    @property
    def staged(self) -> list[Load]:
        return [load for load in self.loads.values() if load.state == "staged"]

    def erase(self, user: str) -> None:
        """Forget a user; staged loads with rows of theirs fail."""
        self.events = [event for event in self.events if event.user != user]
        for load in self.loads.values():
            if load.state == "staged" and load.rows != load.without(user):
                load.state = "failed"
            load.rows = load.without(user)

    def free(self, keep_days: int, keep_loads: int) -> None:
        """Free whole nights past the retention, and of other nights the loads that aren't kept."""
        newest = max((on for _, on in self.published), default=None)
        for key in {load.key for load in self.loads.values()}:
            closed = [load for load in self._of(key) if load.state != "staged"]
            if newest is not None and key[1] < newest - timedelta(days=keep_days):
                if self.published.pop(key, None) is not None:
                    next(load for load in closed if load.state == "published").state = "superseded"
            else:
                former = [
                    load for load in closed if load.state == "superseded" and load.shown and not load.freed
                ]
                kept = sorted(former, key=lambda load: load.shown)[max(len(former) - keep_loads, 0) :]
                closed = [load for load in closed if load.state != "published" and load not in kept]
            for load in closed:
                load.freed = True

    def _of(self, key: Key) -> Iterable[Load]:
        return [load for load in self.loads.values() if load.key == key]

    # Champions

    def of_domain(self, domain: str | None) -> list[tuple[int, Decision]]:
        """The decisions that a domain follows, or all domains, newest first, with their numbers."""
        numbered = list(enumerate(self.decisions))
        return [(n, decision) for n, decision in reversed(numbered) if decision.domain in (None, domain)]

    def champion(self, domain: str | None) -> str:
        return self.of_domain(domain)[0][1].version

    def promote(self, version: str, domain: str | None) -> None:
        self.decisions.append(Decision(domain, version, len(self.decisions)))

    def before(self, domain: str | None) -> Decision | None:
        """The decision that a rollback restores."""
        decisions = self.of_domain(domain)
        now = decisions[0][1]
        older = (d for n, d in decisions if n < now.in_force and d.version != now.version)
        return next(older, None)

    def rollback(self, domain: str | None) -> None:
        earlier = self.before(domain)
        assert earlier is not None
        self.decisions.append(earlier._replace(domain=domain))


def by_key(rows: list[dict[str, Any]]) -> Seen:
    """Return what readers see of each domain and date, from rows in order."""
    seen: dict[Key, tuple[str, list[Any]]] = {}
    for row in rows:
        on = row["score_date"]
        key = row["domain_id"], on if isinstance(on, date) else date.fromisoformat(on)
        score = float(np.float32(row["score"]))
        seen.setdefault(key, (row["load_id"], []))[1].append(
            (row["user_id"], row["item_id"], score, row["position"])
        )
    return {key: (load_id, tuple(found)) for key, (load_id, found) in seen.items()}
