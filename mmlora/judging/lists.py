"""Measure how personal lists are, on a sample of each domain's users and the lists that a night would give.

:func:`panels` samples users and candidate items from the rows of the training set, each contender ranks
them, and :func:`list_row` returns how often the same item comes first and how many of the items are shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmlora.judgement import ListRow
from mmlora.judging.popularity import ItemRates
from mmlora.judging.rows import Rows
from mmlora.training.rows import blocks, sample

LIST_LENGTH = 20
MOST_USERS = 200
"""Largest number of users in a domain's sample."""
_LEAST_USERS, _MOST_PAIRS = 20, 4_000_000
_LEAST_ITEMS, _MOST_ITEMS, _MOST_SIDES = 500, 20_000, 400_000
_BLOCK_ROWS = 1 << 20
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """A domain's sample of users and items.

    Attributes:
        domain: the domain's index.
        users: codes of the users, sorted, ``[U]``.
        items: codes of the candidate items, sorted, ``[I]``.
        excluded_user: user, as an index of ``users``, of each pair that is not a candidate, ``[P]``, sorted.
        excluded_item: item of these pairs, as an index of ``items``, ``[P]``, sorted per user.
    """

    domain: int
    users: Codes
    items: Codes
    excluded_user: Codes
    excluded_item: Codes


def panels(rows: Rows) -> list[Panel]:
    """Return the samples of the domains with test rows.

    Users are sampled from those with test rows, up to 200 per domain, fewer if there are many candidates.
    Items are all items of any row, or a sample if there are many; pairs of any row are excluded.
    """
    domains = rows.data.num_domains
    items = int(rows.item.max(initial=-1)) + 1
    most_items = int(np.clip(_MOST_SIDES // domains, _LEAST_ITEMS, _MOST_ITEMS))
    candidates = sample(np.arange(items), most_items, rows.seed)
    most_users = int(np.clip(_MOST_PAIRS // (domains * max(len(candidates), 1)), _LEAST_USERS, MOST_USERS))
    random = np.random.default_rng(rows.seed)
    test = rows.data.rows("test")
    domain_of, user_of = rows.domain(test), np.asarray(rows.data.user[test])
    chosen = {}
    for domain in np.unique(domain_of):
        users = np.unique(user_of[domain_of == domain])
        chosen[int(domain)] = np.sort(random.permutation(users)[:most_users]).astype(np.int64)
    user, item = _pairs_of(rows, np.unique(np.concatenate([*chosen.values(), np.zeros(0, np.int64)])))
    return [_panel(domain, users, candidates, user, item) for domain, users in chosen.items()]


def _pairs_of(rows: Rows, users: Codes) -> tuple[Codes, Codes]:
    """Return users and items of the distinct pairs of some users in any domain, sorted."""
    wanted = np.zeros(int(rows.data.user.max(initial=-1)) + 1, bool)
    wanted[users] = True
    pairs = [np.zeros((0, 2), np.int64)]
    for _, block in blocks(np.arange(len(rows.data)), _BLOCK_ROWS):
        user = np.asarray(rows.data.user[block])
        own = wanted[user]
        pairs.append(np.stack([user[own], rows.item[block][own]], 1).astype(np.int64))
    distinct = np.unique(np.concatenate(pairs), axis=0)
    return distinct[:, 0], distinct[:, 1]


def _panel(domain: int, users: Codes, items: Codes, user: Codes, item: Codes) -> Panel:
    own = np.isin(user, users) & np.isin(item, items)
    excluded = np.searchsorted(users, user[own]), np.searchsorted(items, item[own])
    return Panel(domain, users, np.asarray(items), *excluded)


def popular_lists(panel: Panel, rates: ItemRates, seed: int) -> tuple[Codes, Codes]:
    """Rank a panel by click rates in the domain; return ``user`` and ``item`` of :func:`list_row`."""
    rate = rates(np.full(len(panel.items), panel.domain), panel.items)
    best = np.lexsort((np.random.default_rng(seed).random(len(rate)), -rate))
    users, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for user in range(len(panel.users)):
        first, last = np.searchsorted(panel.excluded_user, [user, user + 1])
        own = best[~np.isin(best, panel.excluded_item[first:last])][:LIST_LENGTH]
        users.append(np.full(len(own), user))
        items.append(own)
    return np.concatenate(users), np.concatenate(items)


def list_row(domain: str, name: str, panel: Panel, user: Codes, item: Codes) -> ListRow:
    """Return how similar the users' lists are.

    Args:
        domain: the panel's domain.
        name: the contender that ranked it.
        panel: the sample.
        user: user of each list entry, as an index of ``panel.users``, sorted, ``[M]``.
        item: item of each entry, as an index of ``panel.items``, best first per user, ``[M]``.
    """
    first = item[np.searchsorted(user, np.unique(user))]
    return ListRow(
        domain=domain,
        name=name,
        users=len(first),
        items=len(panel.items),
        most_common_first=float(np.bincount(first).max() / len(first)) if len(first) else None,
        coverage=len(np.unique(item)) / len(panel.items) if len(panel.items) else None,
    )
