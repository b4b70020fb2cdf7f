"""The worlds that made-up rows are drawn from: who users and items are, and what makes a click likely.

Both have the same frame. With ``diversity`` v, and brackets of unit variance,

    logit = base + SCALE * (sqrt(1 - v) [shared part] + sqrt(v) [domain d's own part]) + v * c_d

:class:`HiddenTastes` shows only traces of what users and items are in their profiles. :class:`GivenVectors`
shows vectors of users and items, so that a model has to learn how each domain matches them.
:mod:`mmlora.data.synthetic` draws the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmlora.schema import ITEM_ID, USER_ID, Entity

if TYPE_CHECKING:
    from mmlora.data.synthetic import Dials

Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

SEGMENTS, CATEGORIES = 6, 10
_BLOCK = 1 << 18


class World(Protocol):
    """Users, items and domains with the two brackets of their true logits."""

    SCALE: ClassVar[float]
    BASE: ClassVar[float]

    @property
    def diversity(self) -> float:
        """The share of a domain's own part: v."""

    @property
    def level(self) -> Float32s:
        """What domains add to their logits: c_d ``[D]``."""

    @classmethod
    def draw(cls, dials: Dials) -> Self:
        """Draw a world; users and items stay the same when only the domains' dials change."""

    def bracket(self, domain: Ints | None, user: Ints, item: Ints) -> Float32s:
        """Return the part of rows that is their domain's own, or the shared one without domain, ``[N]``."""

    def profiles(self) -> dict[Entity, pa.Table]:
        """Return what is known of users and items."""


@dataclass(frozen=True)
class HiddenTastes:
    """Hidden tastes, a table of segment by category, and a bias of each item.

    The brackets are ``sqrt(.5) x_u'W_d y_i + sqrt(.3) T_d[s_u, k_i] + sqrt(.2) z_di``, with standard normal
    x, y, z and T, W_d of rank 2 and norm 1, and W = 1 / sqrt(8) in the shared part. U users, I items, D
    domains, K tastes, R ranks.

    Attributes:
        diversity: v.
        taste: x ``[U, K]``.
        quality: y ``[I, K]``.
        segment: ``[U]``.
        category: ``[I]``.
        table: T, that of the shared part first: ``[1 + D, segments, categories]``.
        bias: z, likewise: ``[1 + D, I]``.
        left, right: W_d = left right': ``[D, K, R]``.
        level: c_d ``[D]``.
        age, price: noisy views of taste 0 and of the items' shared z.
    """

    TASTES = 8
    RANK = 2
    SCALE: ClassVar[float] = 1.5
    BASE: ClassVar[float] = -1.2
    WEIGHTS = np.sqrt(np.array([0.5, 0.3, 0.2], np.float32))

    diversity: float
    taste: Float32s
    quality: Float32s
    segment: Ints
    category: Ints
    table: Float32s
    bias: Float32s
    left: Float32s
    right: Float32s
    level: Float32s
    age: Float32s
    price: Float32s

    @classmethod
    def draw(cls, dials: Dials) -> Self:
        """See :class:`World`."""
        # Users and items come from a stream of their own, so that they stay when the domains change.
        common = np.random.default_rng([dials.seed, 0])
        taste, quality = _normal(common, dials.users, cls.TASTES), _normal(common, dials.items, cls.TASTES)
        segment = common.integers(0, SEGMENTS, dials.users)
        category = common.integers(0, CATEGORIES, dials.items)
        table, bias = _normal(common, 1, SEGMENTS, CATEGORIES), _normal(common, 1, dials.items)
        age = 40 + 12 * (0.8 * taste[:, 0] + 0.6 * _normal(common, dials.users))
        price = np.exp(3 + 0.8 * bias[0] + 0.6 * _normal(common, dials.items))
        own = np.random.default_rng([dials.seed, 2])
        families = dials.families or dials.domains
        left, right = _low_rank(own, families, cls.TASTES, cls.RANK)
        own_table, own_bias = (
            _normal(own, families, SEGMENTS, CATEGORIES),
            _normal(own, families, dials.items),
        )
        family = np.arange(dials.domains) % families
        return cls(
            diversity=dials.diversity,
            taste=taste,
            quality=quality,
            segment=segment,
            category=category,
            table=np.concatenate([table, own_table[family]]),
            bias=np.concatenate([bias, own_bias[family]]),
            left=left[family],
            right=right[family],
            level=0.5 * _normal(own, dials.domains),
            age=age,
            price=price,
        )

    def profiles(self) -> dict[Entity, pa.Table]:
        """Return what is shown of users and items."""
        segments = pa.array([f"segment-{number}" for number in range(SEGMENTS)])
        categories = pa.array([f"category-{number}" for number in range(CATEGORIES)])
        users, items = len(self.segment), len(self.category)
        return {
            "user": pa.table(
                {
                    USER_ID: np.arange(1, users + 1),
                    "segment": segments.take(pa.array(self.segment)),
                    "age": self.age,
                }
            ),
            "item": pa.table(
                {
                    ITEM_ID: np.arange(1, items + 1),
                    "category": categories.take(pa.array(self.category)),
                    "price": self.price,
                }
            ),
        }

    def bracket(self, domain: Ints | None, user: Ints, item: Ints) -> Float32s:
        """See :class:`World`."""
        taste, quality = self.taste[user], self.quality[item]  # [n, K]
        if domain is None:
            alike = np.einsum("nk,nk->n", taste, quality) / np.sqrt(self.TASTES)
        else:
            alike = _bilinear(taste, self.left[domain], self.right[domain], quality)
        part = 0 if domain is None else 1 + domain
        table = self.table[part, self.segment[user], self.category[item]]
        return np.asarray(np.stack([alike, table, self.bias[part, item]], 1) @ self.WEIGHTS)


@dataclass(frozen=True)
class GivenVectors:
    """Vectors of users and items, shown almost as they are, and a low-rank form of them for each domain.

    The brackets are ``sqrt(.94) x_u'W_d y_i + sqrt(.06) z_di`` with standard normal x, y and z, and W_d of
    rank 4 and norm 1, in the shared part too. Profiles show x and y with a fifth of noise. An item's CTR
    says little, one form for all domains reaches the shared part, and only a form for each domain reaches
    the rest. U users, I items, D domains, K width, R ranks.

    Attributes:
        diversity: v.
        user: x ``[U, K]``.
        item: y ``[I, K]``.
        shown_user, shown_item: what profiles show, likewise.
        bias: z, that of the shared part first: ``[1 + D, I]``.
        left, right: W = left right', that of the shared part first: ``[1 + D, K, R]``.
        level: c_d ``[D]``.
    """

    RANK = 4
    SCALE: ClassVar[float] = 2.7
    BASE: ClassVar[float] = -1.0
    NOISE = np.float32(0.2)
    WEIGHTS = np.sqrt(np.array([0.94, 0.06], np.float32))

    diversity: float
    user: Float32s
    item: Float32s
    shown_user: Float32s
    shown_item: Float32s
    bias: Float32s
    left: Float32s
    right: Float32s
    level: Float32s

    @classmethod
    def draw(cls, dials: Dials) -> Self:
        """See :class:`World`."""
        common = np.random.default_rng([dials.seed, 0])
        width = dials.vectors or 0
        user, item = (_normal(common, count, width) for count in (dials.users, dials.items))
        shown_user, shown_item = (side + cls.NOISE * _normal(common, *side.shape) for side in (user, item))
        left, right = _low_rank(common, 1, width, cls.RANK)
        bias = _normal(common, 1, dials.items)
        own = np.random.default_rng([dials.seed, 2])
        families = dials.families or dials.domains
        family = np.arange(dials.domains) % families
        own_left, own_right = _low_rank(own, families, width, cls.RANK)
        own_bias = _normal(own, families, dials.items)
        return cls(
            diversity=dials.diversity,
            user=user,
            item=item,
            shown_user=shown_user,
            shown_item=shown_item,
            bias=np.concatenate([bias, own_bias[family]]),
            left=np.concatenate([left, own_left[family]]),
            right=np.concatenate([right, own_right[family]]),
            level=0.5 * _normal(own, dials.domains),
        )

    def profiles(self) -> dict[Entity, pa.Table]:
        """Return what is shown of users and items."""
        return {
            "user": _vector_profile(USER_ID, self.shown_user),
            "item": _vector_profile(ITEM_ID, self.shown_item),
        }

    def bracket(self, domain: Ints | None, user: Ints, item: Ints) -> Float32s:
        """See :class:`World`."""
        part = np.zeros_like(user) if domain is None else 1 + domain
        turned = _bilinear(self.user[user], self.left[part], self.right[part], self.item[item])
        return np.asarray(np.stack([turned, self.bias[part, item]], 1) @ self.WEIGHTS)


def logits(world: World, domain: Ints, user: Ints, item: Ints) -> tuple[Float32s, Float32s]:
    """Return the shared part (base included) and the domain's own part of rows, ``[N]`` each."""
    shared, own = np.empty(len(user), np.float32), np.empty(len(user), np.float32)
    among_all, its_own = np.sqrt(1 - world.diversity), np.sqrt(world.diversity)
    for rows in _blocks(len(user)):
        d, u, i = domain[rows], user[rows], item[rows]
        shared[rows] = world.BASE + world.SCALE * among_all * world.bracket(None, u, i)
        own[rows] = world.SCALE * its_own * world.bracket(d, u, i) + world.diversity * world.level[d]
    return shared, own


def _vector_profile(key: str, vectors: Float32s) -> pa.Table:
    offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
    lists = pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel()))
    return pa.table({key: np.arange(1, len(vectors) + 1), "vector": lists})


def _normal(rng: np.random.Generator, *shape: int) -> Float32s:
    return rng.standard_normal(shape, np.float32)


def _low_rank(rng: np.random.Generator, count: int, width: int, rank: int) -> tuple[Float32s, Float32s]:
    """Draw factors ``[count, width, rank]`` of matrices left right' of norm 1."""
    left, right = (_normal(rng, count, width, rank) for _ in range(2))
    norm = np.linalg.norm(np.einsum("dkr,dlr->dkl", left, right), axis=(1, 2))
    return left / norm[:, None, None], right


def _bilinear(x: Float32s, left: Float32s, right: Float32s, y: Float32s) -> Float32s:
    """Return x'(left right')y of each row, ``[N]``; vectors are ``[N, K]``, factors ``[N, K, R]``."""
    low, high = np.einsum("nk,nkr->nr", x, left), np.einsum("nk,nkr->nr", y, right)
    return np.asarray(np.einsum("nr,nr->n", low, high))


def _blocks(rows: int) -> list[slice]:
    """The vectors of all rows at once would be large."""
    return [slice(start, start + _BLOCK) for start in range(0, rows, _BLOCK)]
