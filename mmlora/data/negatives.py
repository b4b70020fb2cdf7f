"""Draws negatives for a log of clicks: items of the same domain that the user did not click there.

Everything is vectorised over integer codes in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
_ROUNDS = 20


@dataclass(frozen=True)
class Negatives:
    """What was drawn.

    Attributes:
        click: ``[M]`` the click that a negative belongs to: it has its user, domain and time.
        item: ``[M]`` the item drawn.
        wanted: ``[N]`` negatives that each click should have had.
        eligible: ``[N]`` items that each click's negatives could be drawn from.
    """

    click: Ints
    item: Ints
    wanted: Ints
    eligible: Ints


def draw_negatives(
    user: Ints, item: Ints, domain: Ints, moment: Ints, rate: npt.NDArray[np.float64], *, seed: int
) -> Negatives:
    """Draw negatives for N clicks, uniformly from the items clicked in a click's domain but not by its user.

    A click gets ``floor(rate)`` or ``ceil(rate)`` of them, spread evenly over the clicks of a domain in their
    given order: any run of n clicks has ``n * rate`` negatives, give or take one. Negatives of one user,
    domain and moment are all different; where too few items are eligible, there are fewer.

    Args:
        user: ``[N]`` codes; ``item``, ``domain`` and ``moment`` likewise; clicks in the order of time.
        item: see user.
        domain: see user; 0 to D - 1.
        moment: see user.
        rate: ``[D]`` negatives a click.
        seed: the same clicks and seed give the same negatives.
    """
    rng = np.random.default_rng(seed)
    pool = _Pool.of(item, domain, len(rate))
    pair = _codes(user, domain)
    clicked = np.unique(pair * pool.items + item)
    eligible = pool.size[domain] - np.bincount(clicked // pool.items)[pair]
    wanted = _spread(domain, rate, rng)
    click = np.repeat(np.arange(len(user)), wanted)
    group = _codes(pair, moment)[click]
    order = np.argsort(group, kind="stable")
    click, group = click[order], group[order]
    enough = _place(group) < eligible[click]
    click, group = click[enough], group[enough]
    drawn = _draw(pool, clicked, pair[click], group, domain[click], rng)
    back = np.argsort(click, kind="stable")
    return Negatives(click[back], drawn[back], wanted, eligible)


def true_probability(probability: npt.ArrayLike, sampling_rate: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Undo the sampling of negatives in a predicted probability: ``w p / (w p + 1 - p)``.

    Args:
        probability: p, of a model trained on all clicks and a share of the non-clicks.
        sampling_rate: w, that share (0 to 1).

    Source: He et al., "Practical lessons from predicting clicks on ads at Facebook", 2014, section 6.3.
    """
    p, w = np.asarray(probability, np.float64), np.asarray(sampling_rate, np.float64)
    return np.asarray(w * p / (w * p + 1 - p))


@dataclass(frozen=True)
class _Pool:
    """The items of each domain, one domain after the other, and where each begins."""

    item: Ints
    start: Ints
    size: Ints
    items: int

    @classmethod
    def of(cls, item: Ints, domain: Ints, domains: int) -> _Pool:
        items = int(item.max()) + 1
        held = np.unique(domain * items + item)
        size = np.bincount(held // items, minlength=domains)
        return cls(held % items, np.cumsum(size) - size, size, items)


def _codes(a: Ints, b: Ints) -> Ints:
    """Return ``[N]`` codes 0, 1, ... of the pairs (a, b)."""
    return np.asarray(np.unique(a * (int(b.max()) + 1) + b, return_inverse=True)[1], np.int64)


def _place(group: Ints) -> Ints:
    """Return each row's place in its group, where equal groups stand together."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    return np.asarray(np.arange(len(group)) - np.repeat(first, np.diff(first, append=len(group))))


def _spread(domain: Ints, rate: npt.NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """Return whole numbers whose sums over a domain's clicks keep up with the rate (``[N]``)."""
    order = np.argsort(domain, kind="stable")
    of = domain[order]
    place, phase = _place(of), rng.random(len(rate))[of]
    wanted = np.empty(len(domain), np.int64)
    wanted[order] = np.floor((place + 1) * rate[of] + phase) - np.floor(place * rate[of] + phase)
    return wanted


def _draw(
    pool: _Pool, clicked: Ints, pair: Ints, group: Ints, domain: Ints, rng: np.random.Generator
) -> Ints:
    """Draw again where an item was clicked or came before in its group; at last choose from what is left."""
    item = np.full(len(group), -1, np.int64)
    active = np.arange(len(group))
    for _ in range(_ROUNDS):
        new = active[item[active] < 0]
        if not len(new):
            return item
        place = (rng.random(len(new)) * pool.size[domain[new]]).astype(np.int64)
        item[new] = pool.item[pool.start[domain[new]] + place]
        bad = new[_among(pair[new] * pool.items + item[new], clicked)]
        is_new = np.isin(active, new, assume_unique=True)
        order = active[np.lexsort((is_new, item[active], group[active]))]
        key = group[order] * pool.items + item[order]
        item[order[1:][key[1:] == key[:-1]]] = -1
        item[bad] = -1
        active = active[np.isin(group[active], group[active[item[active] < 0]])]
    return _choose_rest(item, active, pool, clicked, pair, group, domain, rng)


def _choose_rest(
    item: Ints,
    active: Ints,
    pool: _Pool,
    clicked: Ints,
    pair: Ints,
    group: Ints,
    domain: Ints,
    rng: np.random.Generator,
) -> Ints:
    """List all that is eligible for the groups that still lack some, and choose among it."""
    rest = active[item[active] < 0]
    if not len(rest):
        return item
    lacking = np.concatenate([[True], np.diff(group[rest]) > 0])  # one row for each group
    row = np.repeat(rest[lacking], pool.size[domain[rest[lacking]]])
    listed = pool.item[pool.start[domain[row]] + _place(group[row])]
    held = active[item[active] >= 0]
    taken = np.sort(group[held] * pool.items + item[held])
    free = ~_among(pair[row] * pool.items + listed, clicked) & ~_among(
        group[row] * pool.items + listed, taken
    )
    of, listed = group[row][free], listed[free]
    order = np.lexsort((rng.random(len(of)), of))
    of, listed = of[order], listed[order]
    # The n-th row that a group lacks takes the n-th of what is free for it.
    item[rest] = listed[np.searchsorted(of, group[rest], "left") + _place(group[rest])]
    return item


def _among(keys: Ints, sorted_keys: Ints) -> npt.NDArray[np.bool_]:
    if not len(sorted_keys):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[at] == keys)
