"""Whether lists are personal: a sample of each domain's users, and the lists that a night would give them.

:func:`panels` chooses users and candidate items from the training set's rows; whoever can score them ranks
them, and :func:`list_row` says how often the same item comes first and how much of the catalogue is
shown.
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
"""Users of a domain's sample."""
_LEAST_USERS, _MOST_PAIRS = 20, 4_000_000
_LEAST_ITEMS, _MOST_ITEMS, _MOST_SIDES = 500, 20_000, 400_000
_BLOCK_ROWS = 1 << 20
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Panel:
    """A domain's sample.

    Attributes:
        domain: the domain's index.
        users: codes of its users, sorted, ``[U]``.
        items: codes of the candidate items, sorted, ``[I]``.
        had_user: places among ``users`` of pairs that aren't candidates any more, ``[P]``, sorted.
        had_item: their places among ``items``, ``[P]``, sorted inside a user.
    """

    domain: int
    users: Codes
    items: Codes
    had_user: Codes
    had_item: Codes


def panels(rows: Rows) -> list[Panel]:
    """Return the samples of the domains that have test rows.

    Users are drawn from those with test rows, up to 200 a domain, fewer where candidates are many. Items are
    all that any row has, or a sample where they are many; less what the user has had in any row.
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
    had_user, had_item = _had(rows, np.unique(np.concatenate([*chosen.values(), np.zeros(0, np.int64)])))
    return [_panel(domain, users, candidates, had_user, had_item) for domain, users in chosen.items()]


def _had(rows: Rows, users: Codes) -> tuple[Codes, Codes]:
    """Return the distinct pairs of some users, by user and item, in any domain."""
    wanted = np.zeros(int(rows.data.user.max(initial=-1)) + 1, bool)
    wanted[users] = True
    pairs = [np.zeros((0, 2), np.int64)]
    for _, block in blocks(np.arange(len(rows.data)), _BLOCK_ROWS):
        user = np.asarray(rows.data.user[block])
        own = wanted[user]
        pairs.append(np.stack([user[own], rows.item[block][own]], 1).astype(np.int64))
    found = np.unique(np.concatenate(pairs), axis=0)
    return found[:, 0], found[:, 1]


def _panel(domain: int, users: Codes, items: Codes, had_user: Codes, had_item: Codes) -> Panel:
    own = np.isin(had_user, users) & np.isin(had_item, items)
    places = np.searchsorted(users, had_user[own]), np.searchsorted(items, had_item[own])
    return Panel(domain, users, np.asarray(items), *places)


def popular_lists(panel: Panel, rates: ItemRates, seed: int) -> tuple[Codes, Codes]:
    """Rank a panel by the items' click rates in the domain: see :func:`list_row` for what is returned."""
    rate = rates(np.full(len(panel.items), panel.domain), panel.items)
    best = np.lexsort((np.random.default_rng(seed).random(len(rate)), -rate))
    users, items = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for user in range(len(panel.users)):
        first, last = np.searchsorted(panel.had_user, [user, user + 1])
        own = best[~np.isin(best, panel.had_item[first:last])][:LIST_LENGTH]
        users.append(np.full(len(own), user))
        items.append(own)
    return np.concatenate(users), np.concatenate(items)


def list_row(domain: str, name: str, panel: Panel, user: Codes, item: Codes) -> ListRow:
    """Return how alike the users' lists are.

    Args:
        domain: the panel's domain.
        name: the contender that ranked it.
        panel: the sample.
        user: places of the users of the lists' entries, sorted, ``[M]``.
        item: places of their items, a user's best first.
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
