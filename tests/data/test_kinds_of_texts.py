"""Values of a CSV are what the same values are in plain Parquet, or are refused with the row."""

import bz2
import codecs
import gzip
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from mmlora.errors import DataError, MmloraError, UsageError
from mmlora.schema import TIMESTAMP, Entity
from tests.data.reading import LONG, ReadUsers, read_users, write_and_read_users


@pytest.fixture
def users(tmp_path: Path) -> ReadUsers:
    """Read a user profile from a file's bytes, or from the plain Parquet of a table."""
    return partial(write_and_read_users, tmp_path)


@pytest.mark.parametrize(
    ("cells", "same"),
    [
        (["01234", "1234", "00099"], ["01234", "1234", "00099"]),
        (["+4912", "4912", "5"], ["+4912", "4912", "5"]),
        (["12E5", "345", "6"], ["12E5", "345", "6"]),
        ([str(2**63), "1", "2"], [str(2**63), "1", "2"]),
        ([str(LONG), "", "7"], [LONG, None, 7]),
        (["9007199254740993", "1.5", ""], ["9007199254740993", "1.5", None]),
        (["1000.5", "NA", "2000.5"], [1000.5, None, 2000.5]),
        (["1", "n/a", "-"], [1, None, None]),
        (["1", "NaN", "None"], [1, None, None]),
        (["0.5", "\\N", "null"], [0.5, None, None]),
        (["1e-05", "2", "unknown"], [1e-05, 2.0, None]),
        (["True", "FALSE", "N/A"], [True, False, None]),
        (["2026-01-05", "", "1999-12-31"], [date(2026, 1, 5), None, date(1999, 12, 31)]),
        (
            ["2026-01-05T10:00:00+02:00", "2026-01-05 08:00:00", "9999-12-31"],
            [datetime(2026, 1, 5, 8), datetime(2026, 1, 5, 8), datetime(9999, 12, 31)],
        ),
        (["NA", "Rome", "None"], ["NA", "Rome", "None"]),
        (["x, y", 'a "b"', "line\nbreak"], ["x, y", 'a "b"', "line\nbreak"]),
        ([" a", "b ", ""], [" a", "b ", None]),
        (["18", "19", "65+"], ["18", "19", "65+"]),
        (["2026-02-30", "2026-01-01", ""], ["2026-02-30", "2026-01-01", None]),
    ],
)
@pytest.mark.parametrize("form", ["plain", "crlf", "bom", "semicolon", "gzip"])
def test_csv_values_equal_those_of_parquet(
    users: ReadUsers, cells: list[str], same: list[object], form: str
) -> None:
    separator = ";" if form == "semicolon" else ","
    quoted = ['"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell for cell in cells]
    lines = [f"user_id{separator}trait", *(f"{n}{separator}{cell}" for n, cell in enumerate(quoted))]
    content = (("\r\n" if form == "crlf" else "\n").join(lines) + "\n").encode()
    content = codecs.BOM_UTF8 + content if form == "bom" else content
    content = gzip.compress(content) if form == "gzip" else content
    found = users(content, "u.csv.gz" if form == "gzip" else "u.csv").profiles["user"]
    assert found.equals(users({"user_id": [0, 1, 2], "trait": same}).profiles["user"])


@pytest.mark.parametrize(
    ("cells", "becomes", "note"),
    [
        (["01234", "5"], "text", "numbers would lose leading zeros"),
        (["1", "NA"], "integer", "missing is written NA"),
        (["NA", "Rome"], "text", "NA is kept as a text; --missing NA"),
        (["18", "65+"], "text", "1 values are not numbers: '65+'"),
        (["2026-02-30", "2026-01-01"], "text", "1 values are not dates: '2026-02-30'"),
        (["1,5", "2"], "text", "--decimal ,"),
        (["31/12/2026", "01/02/2026"], "text", "write dates as 2000-12-31"),
        (["a|b", "c|d"], "text", "--list TABLE.COLUMN='|'"),
        (["2026-01-01 10:00", "2026-01-02"], "date or time (UTC)", "read as UTC"),
        (["", ""], "not stored: no value", ""),
        (['["a"]', "[]"], "list of texts", "JSON arrays"),
        (["[0.5, 1]", "[1, 2]"], "vector of 2 numbers", "JSON arrays"),
    ],
)
def test_the_summary_says_what_a_column_becomes(
    users: ReadUsers, cells: list[str], becomes: str, note: str
) -> None:
    rows = "".join(f'{n},"{cell.replace(chr(34), chr(34) * 2)}"\n' for n, cell in enumerate(cells))
    delivery = users("user_id,trait\n" + rows)
    column = delivery.columns[-1]
    assert (column.table, column.column, column.becomes) == ("users", "trait", becomes)
    assert note in column.note
    assert delivery.columns[0].becomes == "id (integer)"


def test_options_say_what_a_guess_would_not(users: ReadUsers) -> None:
    def trait(text: str, **options: object) -> list[object]:
        found: list[object] = users(text, **options).profiles["user"].column("trait").to_pylist()
        return found

    assert trait("user_id,trait\n1,5\n2,6\n", texts=("users.trait",)) == ["5", "6"]
    assert trait("user_id,trait\n1,5\n2,-999\n", missing=("-999",)) == [5, None]
    assert trait("user_id;trait\n1;1.000,5\n2;-2\n", decimal=",") == [1000.5, -2.0]
    assert trait("user_id#trait\n1#5\n", delimiter="#") == [5]
    for wrong in ({"texts": ("users.nothing",)}, {"texts": ("trait",)}, {"encoding": "klingon"}):
        with pytest.raises(UsageError):
            users("user_id,trait\n1,5\n", **wrong)
    with pytest.raises(UsageError, match="valid are"):
        users("user_id,trait\n1,5\n", decimal=";")


@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.list_(pa.string()), pa.list_(pa.float32())])
def test_a_stored_column_is_read_as_it_is_stored(tmp_path: Path, kind: pa.DataType) -> None:
    cells, same = {
        pa.string(): (["5678", "NA"], ["5678", "NA"]),
        pa.int64(): (["25.0", ""], [25.0, None]),
        pa.list_(pa.string()): (["3|4", "5"], [["3", "4"], ["5"]]),
        pa.list_(pa.float32()): (["[1,2]", ""], [[1.0, 2.0], None]),
    }[kind]
    content = "user_id,trait\n" + "".join(f'{n},"{cell}"\n' for n, cell in enumerate(cells))
    stored = pa.schema([("user_id", pa.int64()), ("trait", kind)])
    (tmp_path / "u.csv").write_text(content)
    found = read_users([tmp_path / "u.csv"], stored={"user": stored}).profiles["user"]
    assert found.column("trait").to_pylist() == same


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-8-sig"])
def test_text_of_every_encoding(users: ReadUsers, encoding: str) -> None:
    content = "user_id,prénom\n1,Zoé\n2,Ana\n".encode(encoding)
    marked = encoding in ("utf-16", "utf-32", "utf-8-sig")
    if not marked:
        with pytest.raises(DataError, match="--encoding"):
            users(content)
    delivery = users(content, **({} if marked else {"encoding": encoding}))
    assert delivery.profiles["user"].column("prénom").to_pylist() == ["Zoé", "Ana"]
    assert any("byte-order mark" in note for note in delivery.notes) == (encoding in ("utf-16", "utf-32"))
    with pytest.raises(DataError, match="not ascii"):
        users(content, encoding="ascii")


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("u.CSV", bytes),
        ("u.CSV.GZ", gzip.compress),
        ("u.csv", gzip.compress),
        ("u.Csv.Bz2", bz2.compress),
        ("u.csv.zst", lambda content: pa.Codec("zstd").compress(content, asbytes=True)),
    ],
)
def test_names_in_capitals_and_compressions(
    users: ReadUsers, name: str, pack: Callable[[bytes], bytes]
) -> None:
    found = users(pack(b"user_id,age\n1,5\n"), name).profiles["user"]
    assert found.to_pydict() == {"user_id": [1], "age": [5]}


def test_tabs_by_name_and_by_header(users: ReadUsers) -> None:
    for name in ("u.tsv", "u.TSV", "u.csv"):
        delivery = users("user_id\tage\n1\t5\n", name)
        assert delivery.profiles["user"].to_pydict() == {"user_id": [1], "age": [5]}
        assert any("a tab" in note for note in delivery.notes) == (name == "u.csv")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('user_id,age\n1,"x\n2,y\n', "a quote that is never closed"),
        ("user_id,age\n1,2,3\n", "3 values"),
        ("\n", "no header"),
        ("user_id,age,age\n1,2,3\n", "more than one column"),
        ("user_id,age\n1.0,5\n2.0,6\n", "passed through floating point"),
        ("user_id,age\n1.5771348000182269e+18,5\n7,6\n", "passed through floating point"),
        ("user_id,age\n1,inf\n", "infinite"),
        ('user_id,age\n"1\n2",5\na,6\n', "line break in an id"),
    ],
)
def test_broken_texts_are_refused(users: ReadUsers, content: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        users(content)


def test_a_cut_off_archive_is_refused(users: ReadUsers) -> None:
    with pytest.raises(DataError, match="not a CSV file"):
        users(gzip.compress(b"user_id,age\n1,5\n" * 100)[:-20], "u.csv.gz")


@pytest.mark.parametrize("text", ["01234", "+5", "x", "1234567890123456789012"])
def test_texts_where_numbers_are_stored_are_refused_with_the_row(
    users: ReadUsers, tmp_path: Path, text: str
) -> None:
    (tmp_path / "u.csv").write_text(f"user_id,zip\n1,5\n2,{text}\n")
    stored: dict[Entity, pa.Schema] = {"user": pa.schema([("user_id", pa.int64()), ("zip", pa.int64())])}
    with pytest.raises(
        DataError, match=r"not a number, but the stored values.*--text users\.zip.*row 2: user_id=2"
    ):
        read_users([tmp_path / "u.csv"], stored=stored)
    found = read_users([tmp_path / "u.csv"], stored=stored, texts=("users.zip",)).profiles["user"]
    assert found.column("zip").to_pylist() == ["5", text]


def test_a_text_where_times_are_stored_is_refused_with_the_row(tmp_path: Path) -> None:
    (tmp_path / "u.csv").write_text("user_id,seen\n1,2026-01-01\n2,2026-02-30\n3,NA\n")
    stored: dict[Entity, pa.Schema] = {"user": pa.schema([("user_id", pa.int64()), ("seen", TIMESTAMP)])}
    with pytest.raises(
        DataError, match=r"not a time, but the stored values are.*\(1 rows; first: row 2: user_id=2"
    ):
        read_users([tmp_path / "u.csv"], stored=stored)


def test_profiles_are_dated_by_a_column(users: ReadUsers) -> None:
    text = "user_id,signup,ts\n1,2024-05-01,1\n2,,2\n"
    found = users(text, valid_from={"users": "signup"}).profiles["user"].to_pylist()
    assert [row["event_timestamp"] for row in found] == [datetime(2024, 5, 1, tzinfo=UTC), None]
    assert [row["signup"] for row in found] == [datetime(2024, 5, 1, tzinfo=UTC), None]
    with pytest.raises(UsageError, match="one of the columns signup, ts"):
        users(text, valid_from={"users": "joined"})
    with pytest.raises(MmloraError, match=r"not a timestamp|is not a time"):
        users("user_id,name\n1,Ana\n", valid_from={"users": "name"})
