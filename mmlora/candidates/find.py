"""Find a domain's candidates on a date: users x items minus exclusions, never written out as pairs.

Each step of the policy is a query over what is known by then (:mod:`mmlora.candidates.known`), and reports
how much it removed.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmlora.candidates.availability import RemovalRule, availability
from mmlora.candidates.known import KnownData, open_known
from mmlora.candidates.pair_table import read_pairs
from mmlora.candidates.pairs import Candidates, Int64Array, PairIndex
from mmlora.candidates.policy import ACTIVE, ALL, Policy
from mmlora.candidates.report import Selection, counted
from mmlora.candidates.tables import Table, id_columns
from mmlora.load_checks import Removed, Unknown
from mmlora.schema import DOMAIN_ID, ITEM_ID, USER_ID, Id, IdTypes

POPULAR_DAYS = 30
"""Number of days before the night in which clicks count for an item's popularity."""


def find_candidates(
    offline: Path,
    *,
    policy: Policy,
    ids: IdTypes,
    domain: Id,
    on: date,
    known_as_of: datetime | None = None,
) -> Selection:
    """Find the candidates of a domain on a scoring date.

    Args:
        offline: the offline store's folder.
        policy: the domain's policy.
        ids: the id types.
        domain: the domain.
        on: scoring date D; only what happened before D 00:00 UTC counts.
        known_as_of: only what was known by then counts (default: D 00:00 UTC).

    Raises:
        DataError: nothing has been imported, or a table or column of the policy is invalid.
        UsageError: the policy names a column that does not exist.
    """
    with open_known(offline, domain=domain, on=on, known_as_of=known_as_of) as known:
        if policy.pairs is not None:
            return read_pairs(Table("pairs", policy.pairs, domain, on), known, ids=ids)
        removed, unknown = _make_users(policy, known, ids)
        removed_items, unknown_items = _make_items(policy, known, ids)
        users = known.column("SELECT user_id FROM users ORDER BY user_row")
        excluded = _excluded(policy, known, len(users))
        candidates = Candidates(users, known.column("SELECT item_id FROM items ORDER BY item_row"), excluded)
        removed += removed_items
        removed.append(Removed("pairs", _why_excluded(policy), len(excluded.item_rows)))
        popularity = _popularity(known, len(candidates.items)) if policy.retrieval == "popularity" else None
    return Selection(candidates, counted(removed), tuple(unknown + unknown_items), popularity)


def _make_users(policy: Policy, known: KnownData, ids: IdTypes) -> tuple[list[Removed], list[Unknown]]:
    """Create the table ``users`` (user_id, user_row) of the users to score."""
    everyone, unknown = known.make_everyone(), list[Unknown]()
    if policy.users == ACTIVE:
        query = "SELECT DISTINCT user_id FROM known WHERE here AND event_timestamp >= $since"
        count = _make_numbered("user", query, known, since=known.since(policy.active_days))
        reason = f"not active in the domain in {policy.active_days} days"
    elif policy.users == ALL:
        count, reason = _make_numbered("user", "FROM everyone", known), ""
    else:
        table = Table("users", policy.users, known.domain, known.on)
        given = id_columns(table.read((USER_ID,), (DOMAIN_ID,)), ("user", "domain"), ids, str(table))
        known.connection.register("given_users", given)
        where = "WHERE domain_id = $domain" if DOMAIN_ID in given.column_names else ""
        parameters = {"domain": known.domain} if where else {}
        known.make("wanted", f"SELECT DISTINCT user_id FROM given_users {where}", **parameters)
        unknown = known.unknown("wanted", "user", str(table))
        count = _make_numbered("user", "SELECT user_id FROM wanted SEMI JOIN everyone USING (user_id)", known)
        reason = "not in the table of users"
    return [Removed("users", reason, everyone - count)], unknown


def _make_items(policy: Policy, known: KnownData, ids: IdTypes) -> tuple[list[Removed], list[Unknown]]:
    """Create the table ``items`` (item_id, item_row) of the items that can be scored."""
    left, removed = known.make_everything(), list[Removed]()
    rules = list(availability(policy, known, ids))
    if policy.items == "domain":
        rules.insert(0, RemovalRule("never seen in the domain", "SELECT item_id FROM known WHERE here"))
    known.make("stay", "FROM everything")
    for rule in rules:
        query = f"SELECT item_id FROM stay WHERE item_id IN ({rule.stay})"
        kept = known.make("stay", query, **rule.parameters)
        removed.append(Removed("items", rule.removes, left - kept))
        left = kept
    _make_numbered("item", "FROM stay", known)
    unknown = [] if policy.stock is None else known.unknown("stock", "item", "the stock table")
    return removed, unknown


def _make_numbered(entity: str, query: str, known: KnownData, **parameters: object) -> int:
    """Create a table of a query's ids, numbered in order from 0."""
    key = f"{entity}_id"
    numbered = f"SELECT {key}, row_number() OVER (ORDER BY {key}) - 1 AS {entity}_row FROM ({query})"
    return known.make(f"{entity}s", numbered, **parameters)


def _excluded(policy: Policy, known: KnownData, users: int) -> PairIndex:
    """Return the pairs that the policy leaves out, as positions in ``users`` and ``items``."""
    conditions, parameters = ["true"], {}
    if policy.exclude == "none":
        conditions = ["false"]
    if policy.exclude == "clicked":
        conditions.append("clicked")
    if policy.exclude_in == "domain":
        conditions.append("here")
    if policy.exclude_days and policy.exclude != "none":
        conditions.append("event_timestamp >= $since")
        parameters["since"] = known.since(policy.exclude_days)
    found = known.rows(
        "SELECT DISTINCT user_row, item_row FROM known JOIN users USING (user_id) JOIN items USING (item_id) "
        f"WHERE {' AND '.join(conditions)} ORDER BY user_row, item_row",
        **parameters,
    )
    return PairIndex.from_rows(_numbers(found.column("user_row")), _numbers(found.column("item_row")), users)


def _numbers(column: object) -> Int64Array:
    return np.asarray(column).astype(np.int64)


def _why_excluded(policy: Policy) -> str:
    where = "in the domain" if policy.exclude_in == "domain" else "in any domain"
    when = f" in {policy.exclude_days} days" if policy.exclude_days else ""
    return f"{policy.exclude} {where}{when}"


def _popularity(known: KnownData, items: int) -> npt.NDArray[np.float32]:
    """Return each item's popularity: by recent clicks in the domain, then by rows, then by id."""
    found = known.rows(
        f"SELECT {ITEM_ID}, item_row, count(event_timestamp) FILTER (clicked) AS clicks, "
        "count(event_timestamp) AS shown FROM items "
        f"LEFT JOIN (FROM known WHERE here AND event_timestamp >= $since) USING ({ITEM_ID}) "
        f"GROUP BY {ITEM_ID}, item_row ORDER BY clicks DESC, shown DESC, item_row",
        since=known.since(POPULAR_DAYS),
    )
    places = np.zeros(items, np.float32)
    places[_numbers(found.column("item_row"))] = -np.arange(items, dtype=np.float32)
    return places
