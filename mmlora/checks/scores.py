"""The checks of a staged load as declared rules: what each reads, when it passes, and what it protects from.

The figures are those of `sql/audit.sql`. To add a check, add a rule here, and to the query a figure that it
needs and that isn't there yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """What a load must hold.

    Attributes:
        rows: sum over the users of min(k, pairs to score).
        users: users with a pair to score.
        top_k: rows kept per user; 0: all.
        content_hash: as it was staged.
    """

    rows: int
    users: int
    top_k: int
    content_hash: str


@dataclass(frozen=True)
class LoadFigures:
    """What was found in a load's files.

    Attributes:
        rows: all of them.
        users: distinct users.
        nulls: rows with a null in any column.
        out_of_range: scores below 0, above 1 or not a number.
        lowest: the lowest score; None without rows.
        highest: the highest score; None without rows.
        deepest: the last position; None without rows.
        foreign: rows of another domain or date.
        misplaced: positions that leave a gap, come twice or begin after 1.
        rising: rows that score above the position before them.
        repeated: rows that repeat a user and item.
        content_hash: of the rows as they lie on disk.
    """

    rows: int
    users: int
    nulls: int
    out_of_range: int
    lowest: float | None
    highest: float | None
    deepest: int | None
    foreign: int
    misplaced: int
    rising: int
    repeated: int
    content_hash: str


@dataclass(frozen=True)
class ScoreRule:
    """One check of a load.

    Attributes:
        name: as reports, the ledger and messages have it.
        protects_from: what readers would get without it.
        passes: whether a load is as it must be.
        detail: the figures that the check looked at.
    """

    name: str
    protects_from: str
    passes: Callable[[LoadFigures, Expected], bool]
    detail: Callable[[LoadFigures, Expected], str]


SCORE_RULES: tuple[ScoreRule, ...] = (
    ScoreRule(
        "rows",
        "a night cut short by a lost shard or a full disk",
        lambda found, wanted: found.rows == wanted.rows,
        lambda found, wanted: f"{found.rows:,} rows, {wanted.rows:,} expected",
    ),
    ScoreRule(
        "users",
        "users without a list, hidden by other users' surplus rows",
        lambda found, wanted: found.users == wanted.users,
        lambda found, wanted: f"{found.users:,} users, {wanted.users:,} expected",
    ),
    ScoreRule(
        "nulls",
        "rows that no join finds",
        lambda found, _: found.nulls == 0,
        lambda found, _: f"{found.nulls:,} rows with a null",
    ),
    ScoreRule(
        "range",
        "scores that are not probabilities: NaN, overflow, an uncalibrated logit",
        lambda found, _: found.out_of_range == 0,
        lambda found, _: f"{found.out_of_range:,} scores not in [0, 1]",
    ),
    ScoreRule(
        "constant",
        "a model that gives the same score to everything, because its features are missing",
        lambda found, _: found.rows <= 1 or found.lowest != found.highest,
        lambda found, _: f"scores from {found.lowest} to {found.highest}",
    ),
    ScoreRule(
        "keys",
        "an item ranked twice for a user",
        lambda found, _: found.repeated == 0,
        lambda found, _: f"{found.repeated:,} rows repeat a user and item",
    ),
    ScoreRule(
        "positions",
        "lists with gaps, or longer than requested",
        lambda found, wanted: (
            found.misplaced == 0 and not (wanted.top_k and (found.deepest or 0) > wanted.top_k)
        ),
        lambda found, wanted: (
            f"{found.misplaced:,} positions leave a gap, repeat or start after 1; "
            f"the last is {found.deepest}, {wanted.top_k or 'any'} at most"
        ),
    ),
    ScoreRule(
        "order",
        "lists whose positions contradict their scores",
        lambda found, _: found.rising == 0,
        lambda found, _: f"{found.rising:,} rows score above the position before",
    ),
    ScoreRule(
        "domain and date",
        "rows that would replace those of another night",
        lambda found, _: found.foreign == 0,
        lambda found, _: f"{found.foreign:,} rows of another domain or date",
    ),
    ScoreRule(
        "content hash",
        "files that changed after they were written",
        lambda found, wanted: found.content_hash == wanted.content_hash,
        lambda found, wanted: f"{found.content_hash[:12]} on disk, {wanted.content_hash[:12]} staged",
    ),
)
