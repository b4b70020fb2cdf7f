"""Opens MovieLens-1M in either of its two forms and gives both the same columns.

GroupLens's own: ``ratings.dat``, ``users.dat``, ``movies.dat`` (``::`` separated, latin-1), in
``ml-1m.zip`` or a folder; item ids are numbers. RecBole's: ``ml-1m.inter``, ``.user``, ``.item``
(tab-separated, UTF-8, no quoting), in a wheel or a folder; item ids are the titles, user ids begin with
``1m_``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mmlora.errors import DataError, UsageError

_GROUPLENS = ("ratings.dat", "users.dat", "movies.dat")
_RECBOLE = ("ml-1m.inter", "ml-1m.user", "ml-1m.item")


@dataclass(frozen=True)
class RawMovieLens:
    """The three tables as text or numbers.

    Attributes:
        ratings: user_id (int64), item_id, rating (float64), timestamp (int64).
        users: user_id (int64), age, occupation (int64 codes), gender.
        items: item_id, year (int64), genres (list of text).
    """

    ratings: pa.Table
    users: pa.Table
    items: pa.Table


def open_movielens(path: Path) -> RawMovieLens:
    """Read MovieLens-1M from a zip file, a wheel or a folder.

    Raises:
        UsageError: there is nothing at ``path``.
        DataError: it holds neither form, or a file of it can't be parsed.
    """
    if not path.exists():
        raise UsageError(
            f"{path}: the file does not exist; give GroupLens's ml-1m.zip or the folder it unpacks to"
        )
    for names, parse in ((_GROUPLENS, _grouplens), (_RECBOLE, _recbole)):
        if (contents := _contents(path, names)) is not None:
            try:
                return parse(*contents)
            except (pa.ArrowException, UnicodeDecodeError) as error:
                raise DataError(str(path), f"not in MovieLens-1M's format: {error}") from None
    raise DataError(str(path), f"contains neither {', '.join(_GROUPLENS)} nor {', '.join(_RECBOLE)}")


def _contents(path: Path, names: Sequence[str]) -> list[bytes] | None:
    """Return the files of these names, wherever they lie inside; None when one is missing."""
    if path.is_dir():
        found = [next(iter(sorted(path.rglob(name))), None) for name in names]
        return None if None in found else [file.read_bytes() for file in found if file is not None]
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            inside = [next((m for m in members if m.rsplit("/", 1)[-1] == name), None) for name in names]
            return None if None in inside else [archive.read(name) for name in inside if name is not None]
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            str(path), f"not a zip file: {error}; give ml-1m.zip or the folder it unpacks to"
        ) from None


def _grouplens(ratings: bytes, users: bytes, movies: bytes) -> RawMovieLens:
    items = _table(_tabbed(movies), ["item_id", "title", "genres"], {"item_id": pa.int64()})
    year = pc.struct_field(pc.extract_regex(items.column("title"), r"\((?P<year>[0-9]{4})\)\s*$"), "year")
    return RawMovieLens(
        ratings=_table(
            _tabbed(ratings),
            ["user_id", "item_id", "rating", "timestamp"],
            {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.float64(), "timestamp": pa.int64()},
        ),
        users=_table(
            _tabbed(users),
            ["user_id", "gender", "age", "occupation", "zip_code"],
            {"user_id": pa.int64(), "age": pa.int64(), "occupation": pa.int64()},
        ),
        items=_items(items.column("item_id"), year, pc.split_pattern(items.column("genres"), "|")),
    )


def _recbole(inter: bytes, user: bytes, item: bytes) -> RawMovieLens:
    ratings = _table(inter, None, {"rating:float": pa.float64(), "timestamp:float": pa.int64()})
    users = _table(user, None, {"age:float": pa.int64(), "occupation:float": pa.int64()})
    items = _table(item, None, {"release_year:float": pa.int64()})
    genres = pc.split_pattern(items.column("genre:token"), " ")
    return RawMovieLens(
        ratings=_named(_numbered(ratings)),
        users=_named(_numbered(users)),
        items=_items(items.column("item_id:token"), items.column("release_year:float"), genres),
    )


def _items(item_id: pa.ChunkedArray, year: pa.ChunkedArray, genres: pa.ChunkedArray) -> pa.Table:
    return pa.table({"item_id": item_id, "year": year.cast(pa.int64()), "genres": genres})


def _tabbed(content: bytes) -> bytes:
    """Return latin-1 text with ``::`` between values as UTF-8 with tabs, which the CSV parser takes."""
    return content.replace(b"::", b"\t").decode("latin-1").encode()


def _table(content: bytes, names: list[str] | None, types: dict[str, pa.DataType]) -> pa.Table:
    """Parse tab-separated text; columns without a type stay text."""
    header = names or content.split(b"\n", 1)[0].decode().strip().split("\t")
    return pa.csv.read_csv(
        pa.BufferReader(content),
        read_options=pa.csv.ReadOptions(column_names=header, skip_rows=0 if names else 1),
        parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
        convert_options=pa.csv.ConvertOptions(column_types={**dict.fromkeys(header, pa.string()), **types}),
    )


def _numbered(table: pa.Table) -> pa.Table:
    """Turn ``1m_17`` into 17."""
    users = pc.replace_substring_regex(table.column("user_id:token"), "^1m_", "").cast(pa.int64())
    return table.set_column(table.column_names.index("user_id:token"), "user_id:token", users)


def _named(table: pa.Table) -> pa.Table:
    """Drop the types from RecBole's column names."""
    return table.rename_columns([name.split(":")[0] for name in table.column_names])
