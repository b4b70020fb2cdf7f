"""MovieLens-1M as interactions and profiles: ratings, with a trait of user or film as the domain.

Label: rating >= ``positive_rating``. Source: Harper and Konstan, "The MovieLens Datasets", 2015,
    https://doi.org/10.1145/2827872.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from mmlora.data.movielens_fetch import fetch_movielens
from mmlora.data.movielens_files import RawMovieLens, open_movielens
from mmlora.errors import DataError, Fault, UsageError
from mmlora.schema import Entity, valid_names

DomainBy = Literal["gender", "age", "occupation", "genre"]

# The README of the data set names these codes; the names here can be file names and need no quotes in a
# shell.
AGES = {
    1: "under-18",
    18: "18-24",
    25: "25-34",
    35: "35-44",
    45: "45-49",
    50: "50-55",
    56: "56-plus",
}
OCCUPATIONS = {
    0: "other",
    1: "educator",
    2: "artist",
    3: "clerical",
    4: "student",
    5: "customer-service",
    6: "health-care",
    7: "managerial",
    8: "farmer",
    9: "homemaker",
    10: "k-12-student",
    11: "lawyer",
    12: "programmer",
    13: "retired",
    14: "sales-marketing",
    15: "scientist",
    16: "self-employed",
    17: "technician-engineer",
    18: "tradesman-craftsman",
    19: "unemployed",
    20: "writer",
}


def read_movielens(
    path: Path | None = None, *, domain_by: DomainBy, positive_rating: int = 5, cache: Path
) -> tuple[pa.Table, dict[Entity, pa.Table]]:
    """Read MovieLens-1M.

    Args:
        path: GroupLens's ``ml-1m.zip`` or its folder (item ids are numbers); None fetches RecBole's copy
            (item ids are titles).
        domain_by: ``gender`` (F, M), ``age`` (:data:`AGES`), ``occupation`` (:data:`OCCUPATIONS`), or
            ``genre``: the film's first listed, in small letters.
        positive_rating: a rating of this or more is a click (1 to 5).
        cache: where the fetched file is kept.

    Returns:
        Interactions, and the profiles of user (gender, age, occupation) and item (year, genres).

    Raises:
        UsageError: an argument is none of the valid ones.
        DataError: the files aren't MovieLens-1M's.
        TransientError: it can't be downloaded now.
    """
    if domain_by not in valid_names(DomainBy):
        raise UsageError(f"domain_by {domain_by!r}: valid are {', '.join(valid_names(DomainBy))}")
    if not 1 <= positive_rating <= 5:
        raise UsageError(f"positive_rating {positive_rating}: valid are 1 to 5")
    source = path or fetch_movielens(cache)
    raw = open_movielens(source)
    users, items = _users(raw, str(source)), _items(raw)
    if domain_by == "genre":
        first = pc.list_element(items.column("genres"), 0)
        domain = _look_up(raw.ratings, "item_id", items, first, str(source))
    else:
        domain = _look_up(raw.ratings, "user_id", users, users.column(domain_by), str(source))
    interactions = pa.table(
        {
            "user_id": raw.ratings.column("user_id"),
            "item_id": raw.ratings.column("item_id"),
            "domain_id": domain,
            "event_timestamp": pc.assume_timezone(
                raw.ratings.column("timestamp").cast(pa.timestamp("s")), "UTC"
            ),
            "label": pc.greater_equal(raw.ratings.column("rating"), positive_rating).cast(pa.int8()),
        }
    )
    return interactions, {"user": users, "item": items}


def _users(raw: RawMovieLens, source: str) -> pa.Table:
    """Gender, age and occupation by name; the zip code is left out, because it nearly identifies the user."""
    return pa.table(
        {
            "user_id": raw.users.column("user_id"),
            "gender": raw.users.column("gender"),
            "age": _named(raw.users.column("age"), AGES, "age", source),
            "occupation": _named(raw.users.column("occupation"), OCCUPATIONS, "occupation", source),
        }
    )


def _items(raw: RawMovieLens) -> pa.Table:
    """Year and genres; a genre is written as its domain is: ``Children's`` as ``childrens``."""
    genres = raw.items.column("genres").combine_chunks()
    names = pc.replace_substring(pc.utf8_lower(genres.values), "'", "")
    return pa.table(
        {
            "item_id": raw.items.column("item_id"),
            "year": raw.items.column("year"),
            "genres": pa.ListArray.from_arrays(genres.offsets, names),
        }
    )


def _named(codes: pa.ChunkedArray, names: dict[int, str], column: str, source: str) -> pa.ChunkedArray:
    places = pc.index_in(codes, pa.array(list(names), pa.int64()))
    unknown = pc.unique(codes.filter(pc.is_null(places))).to_pylist()
    if unknown:
        raise DataError(
            source,
            [
                Fault(
                    f"codes {unknown[:5]}: valid are {list(names)}",
                    column,
                    pc.sum(pc.is_null(places)).as_py(),
                )
            ],
        )
    return pa.chunked_array([pa.array(list(names.values())).take(places.combine_chunks())])


def _look_up(
    ratings: pa.Table, key: str, table: pa.Table, values: pa.ChunkedArray, source: str
) -> pa.ChunkedArray:
    """Return each rating's value by its user or item.

    Raises:
        DataError: a rated user or item isn't in its table.
    """
    places = pc.index_in(ratings.column(key), table.column(key).combine_chunks())
    absent = pc.unique(ratings.column(key).filter(pc.is_null(places)))
    if len(absent):
        rows = pc.sum(pc.is_null(places)).as_py()
        first = tuple(str(value) for value in absent.slice(0, 3).to_pylist())
        raise DataError(source, [Fault(f"rated, but not among the {key[:-3]}s", key, rows, first)])
    return values.take(places)
