"""The checks of a staged load as rules: the figures they use, when they pass, and what they protect from.

The figures are computed by ``sql/audit.sql``. To add a check, add a rule here, and any new figure to the
query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """The figures that a load must have.

    Attributes:
        rows: sum over users of min(k, pairs to score).
        users: number of users with a pair to score.
        top_k: rows kept per user; 0 keeps all.
        content_hash: hash of the rows as staged.
    """

    rows: int
    users: int
    top_k: int
    content_hash: str


@dataclass(frozen=True)
class LoadFigures:
    """The figures of a load's files.

    Attributes:
        rows: number of rows.
        users: number of distinct users.
        nulls: rows with a null in any column.
        out_of_range: scores below 0, above 1 or not a number.
        lowest: the lowest score; None without rows.
        highest: the highest score; None without rows.
        deepest: the last position; None without rows.
        foreign: rows of another domain or date.
        misplaced: positions that leave a gap, repeat or start after 1.
        rising: rows that score above the previous position.
        repeated: rows that repeat a user and item.
        content_hash: hash of the rows on disk.
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
    """A check of a load.

    Attributes:
        name: the name in reports, the ledger and messages.
        protects_from: what readers could get without the check.
        passes: whether a load passes the check.
        detail: a description of the figures that the check used.
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
