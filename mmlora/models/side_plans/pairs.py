"""A block of user-item pairs, and how values of the two sides are combined in it.

Everything here works element by element, so a pair's bits depend neither on its position in the block nor
on whether it came from a grid or from a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

# ``torch.add`` or ``torch.mul``: of two tensors, writing to ``out``.
Operation = Callable[..., Tensor]


class Pairs(Protocol):
    """B pairs of rows of U users and I items."""

    @property
    def rows(self) -> int:
        """B, the number of pairs in the block."""

    def to(self, device: str) -> Pairs:
        """Return the pairs with their tensors on this device."""

    def users(self, values: Tensor) -> Tensor:
        """``[U, ...]`` -> the value of each pair's user, ``[B, ...]``."""

    def items(self, values: Tensor) -> Tensor:
        """``[I, ...]`` -> the value of each pair's item, ``[B, ...]``."""

    def combine(self, operation: Operation, user: Tensor, item: Tensor) -> Tensor:
        """``[U, ...]`` and ``[I, ...]`` -> ``[B, ...]``: the operation on each pair's two values."""


@dataclass(frozen=True)
class ListedPairs:
    """Pairs given as a list.

    Attributes:
        user_rows: ``[B]`` int64.
        item_rows: ``[B]`` int64.
    """

    user_rows: Tensor
    item_rows: Tensor

    @property
    def rows(self) -> int:
        """B, the pairs of the block."""
        return len(self.user_rows)

    def to(self, device: str) -> ListedPairs:
        """Return the pairs with their row numbers on this device."""
        return ListedPairs(self.user_rows.to(device), self.item_rows.to(device))

    def users(self, values: Tensor) -> Tensor:
        """``[U, ...]`` -> ``[B, ...]``."""
        return values.index_select(0, self.user_rows)

    def items(self, values: Tensor) -> Tensor:
        """``[I, ...]`` -> ``[B, ...]``."""
        return values.index_select(0, self.item_rows)

    def combine(self, operation: Operation, user: Tensor, item: Tensor) -> Tensor:
        """``[U, ...]`` and ``[I, ...]`` -> ``[B, ...]``."""
        gathered = self.users(user)
        return operation(gathered, self.items(item), out=gathered)


class _Rectangle(NamedTuple):
    """A range of users x a range of items, and its position in the block."""

    place: slice
    users: slice
    items: slice

    def of(self, block: Tensor) -> Tensor:
        """The rectangle's rows of a block, ``[users, items, ...]``."""
        users, items = self.users.stop - self.users.start, self.items.stop - self.items.start
        return block[self.place].view(users, items, *block.shape[1:])


@dataclass(frozen=True)
class GridPairs:
    """A stretch of users x items, user by user: at most three rectangles, so nothing is gathered by index.

    Attributes:
        start: the first pair, of user ``start // items`` and item ``start % items``.
        count: number of pairs in the stretch; the block's other rows are 0.
        rows: B, at least ``count``.
        num_items: I.
    """

    start: int
    count: int
    rows: int
    num_items: int

    def to(self, device: str) -> GridPairs:
        """Return the pairs unchanged; they have no tensors."""
        return self

    def users(self, values: Tensor) -> Tensor:
        """``[U, ...]`` -> ``[B, ...]``."""
        block = self._block(values)
        for part in self._rectangles:
            part.of(block).copy_(values[part.users].unsqueeze(1))
        return block

    def items(self, values: Tensor) -> Tensor:
        """``[I, ...]`` -> ``[B, ...]``."""
        block = self._block(values)
        for part in self._rectangles:
            part.of(block).copy_(values[part.items].unsqueeze(0))
        return block

    def combine(self, operation: Operation, user: Tensor, item: Tensor) -> Tensor:
        """``[U, ...]`` and ``[I, ...]`` -> ``[B, ...]``."""
        block = self._block(user)
        for part in self._rectangles:
            operation(user[part.users].unsqueeze(1), item[part.items].unsqueeze(0), out=part.of(block))
        return block

    def _block(self, values: Tensor) -> Tensor:
        block = values.new_empty(self.rows, *values.shape[1:])
        block[self.count :] = 0
        return block

    @cached_property
    def _rectangles(self) -> tuple[_Rectangle, ...]:
        return tuple(self._cut())

    def _cut(self) -> Iterator[_Rectangle]:
        """Yield the rest of the first user's items, the whole users, and the last user's first items."""
        done = 0
        while done < self.count:
            user, item = divmod(self.start + done, self.num_items)
            left = self.count - done
            users = max(1, left // self.num_items) if item == 0 else 1
            items = min(self.num_items - item, left)
            place = slice(done, done + users * items)
            yield _Rectangle(place, slice(user, user + users), slice(item, item + items))
            done = place.stop
