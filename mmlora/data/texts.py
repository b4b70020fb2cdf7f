"""Infers the type of a profile column in a CSV, so that it equals the same data in Parquet; pure.

In this order, over all values that aren't missing: ``true`` and ``false`` are booleans, whole numbers are
integers, numbers are floats, ISO dates and times are times, lists are lists (:mod:`mmlora.data.lists`), and
anything else is text. A column stays text if a number has a leading zero, a plus sign or more digits than fit
into 64 bits, because as a number it would change. In columns that aren't text, the usual markers count as
missing values (:data:`MARKERS`); in a text column only what counts as missing everywhere: NA may be Namibia.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from mmlora.data.columns import is_integer_text
from mmlora.data.lists import BAG, VECTOR, find_lists, split_lists
from mmlora.data.times import ISO_TIME, parse_times, time_note

MARKERS = (
    *("na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", "nat", "\\n"),
    *("-", "--", "?", ".", "unknown", "missing", "(null)"),
    *("0000-00-00", "0000-00-00 00:00:00"),
)
"""Markers of a missing value in a column of numbers, dates or booleans; case doesn't matter."""
# A float as programs write it: 12E5 may be an article's code, but 1.2E5 and 12e+05 are not.
_FLOAT = (
    r"^[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([eE][+-][0-9]+)?$"
    r"|^[+-]?[0-9]+\.[0-9]+[eE][0-9]+$|^[+-]?inf(inity)?$"
)
_ZEROS = r"^[+-]?0[0-9]"
_DIGITS = r"^-?[0-9]+$"
_LOSES = rf"{_ZEROS}|^\+[0-9]+$|^-?[0-9]{{16,}}$"
_DATES = r"^[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{4}|^[0-9]{4}[./][0-9]{1,2}[./][0-9]{1,2}"
_DECIMALS = r"^-?[0-9.]*,[0-9]+$"


@dataclass(frozen=True)
class Reading:
    """The distinct texts of a column, converted to their inferred type.

    Attributes:
        values: the values, in the order of the texts.
        kind: the inferred type, in a word or two.
        note: a note for the summary; usually empty.
    """

    values: pa.Array
    kind: str
    note: str = ""


def read_texts(
    texts: pa.Array,
    *,
    wanted: pa.DataType | None = None,
    keep: bool = False,
    separator: str | None = None,
    missing: tuple[str, ...] = (),
    decimal: str = ".",
) -> Reading:
    """Read the distinct texts of a column.

    Args:
        texts: the texts; null is missing.
        wanted: the stored type, if the column is already stored.
        keep: whether to keep them as texts whatever they look like.
        separator: separator of lists, if the user named one.
        missing: markers of missing values besides the usual ones.
        decimal: the decimal point.

    Raises:
        ValueError: the texts can't be read as requested; the message says why.
    """
    if missing:
        texts = _without(texts, pc.is_in(texts, pa.array(missing)))
    if not texts.drop_null():
        return Reading(pa.nulls(len(texts)), "no value")
    if separator is not None:
        values = _split(texts, separator, wanted)
        return Reading(values, "list", "" if separator == "json" else f"separated by {separator!r}")
    if wanted in (BAG, VECTOR):
        found = find_lists(texts, wanted)
        assert found is not None
        return Reading(found[0], "list", found[1])
    if keep or wanted == pa.string():
        return _text(texts, "kept as text, as requested" if keep else "")
    return _infer(texts, decimal)


def is_number(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return where a text is a number that can be kept exactly, or a marker of a missing one."""
    trimmed = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    number = pc.and_(
        pc.match_substring_regex(trimmed, _FLOAT), pc.invert(pc.match_substring_regex(trimmed, _LOSES))
    )
    return pc.or_(number, is_marker(texts))


def is_marker(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return where a text is a marker of a missing value in a column that isn't text."""
    return pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array(MARKERS))


def _split(texts: pa.Array, separator: str, wanted: pa.DataType | None) -> pa.Array:
    try:
        return split_lists(texts, separator, wanted)
    except ValueError as error:
        raise ValueError(f"not a JSON array of texts or numbers: {str(error)[:60]!r}") from None


def _infer(texts: pa.Array, decimal: str) -> Reading:
    trimmed = pc.utf8_trim_whitespace(texts)
    marked = pc.fill_null(is_marker(trimmed), False)
    plain = _without(trimmed, marked)
    rest = plain.drop_null()
    if not rest:
        return _text(texts)
    markers = sorted(set(pc.filter(trimmed, marked).to_pylist()))
    note = f"missing is written {', '.join(markers[:5])}" if markers else ""
    lowered = pc.utf8_lower(plain)
    if _all(pc.is_in(lowered.drop_null(), pa.array(["true", "false"]))):
        return Reading(pc.equal(lowered, "true"), "boolean", note)
    numbers = _numbers(plain, rest, decimal)
    if numbers is not None:
        return Reading(numbers, "integer" if pt.is_integer(numbers.type) else "number", note)
    if _all(pc.match_substring_regex(rest, ISO_TIME)):
        times = parse_times(pa.chunked_array([plain])).combine_chunks()
        if times.null_count == plain.null_count:
            said = "; ".join(part for part in (note, time_note(pa.chunked_array([rest]))) if part)
            return Reading(times, "date or time", said)
    found = find_lists(texts)
    if found is not None:
        return Reading(found[0], "list", found[1])
    kept = (
        f"{markers[0]} is kept as a text; --missing {markers[0]} if it is a missing value" if markers else ""
    )
    return _text(texts, _why_text(rest, decimal) or kept)


def _numbers(plain: pa.Array, rest: pa.Array, decimal: str) -> pa.Array | None:
    if _any(pc.match_substring_regex(rest, _ZEROS)):
        return None
    if _all(is_integer_text(rest)):
        return plain.cast(pa.int64())
    if decimal == ",":
        plain = pc.replace_substring(pc.replace_substring(plain, ".", ""), ",", ".")
        rest = plain.drop_null()
    signs = pc.match_substring_regex(rest, r"^\+[0-9]+$")
    if not _all(pc.match_substring_regex(pc.utf8_lower(rest), _FLOAT)) or _any(signs):
        return None
    if _any(pc.and_(pc.match_substring_regex(rest, _DIGITS), pc.greater(pc.utf8_length(rest), 15))):
        return None  # a float would lose digits
    return pc.utf8_ltrim(plain, "+").cast(pa.float64())


def _text(texts: pa.Array, note: str = "") -> Reading:
    """Return texts unchanged; booleans in the same form as from Parquet."""
    lowered = pc.utf8_lower(texts)
    if _all(pc.is_in(lowered.drop_null(), pa.array(["true", "false"]))):
        return Reading(lowered, "text", note)
    return Reading(texts, "text", note)


def _why_text(rest: pa.Array, decimal: str) -> str:
    """Return why a column that looks like something else is text; empty if it is plainly text."""
    if (
        decimal == "."
        and _all(pc.match_substring_regex(rest, f"{_DECIMALS}|{_DIGITS}"))
        and _any(pc.match_substring(rest, ","))
    ):
        return "text; --decimal , if these are numbers"
    if _all(pc.match_substring_regex(rest, r"^[+-]?[0-9.]+$")):
        if _any(pc.match_substring_regex(rest, _ZEROS)):
            return "text, because numbers would lose leading zeros"
        if _any(pc.match_substring_regex(rest, r"^\+")):
            return "text, because numbers would lose plus signs"
        return "text, because the values have more digits than a number can keep"
    number = pc.or_(pc.match_substring_regex(pc.utf8_lower(rest), _FLOAT), is_integer_text(rest))
    dates = pc.match_substring_regex(rest, ISO_TIME)
    for what, fits in (("numbers", number), ("dates", dates)):
        if 2 * (pc.sum(fits).as_py() or 0) >= len(rest):
            odd = pc.filter(rest, pc.invert(fits)).to_pylist() or [rest[0].as_py()]
            shown = ", ".join(repr(text[:30]) for text in odd[:3])
            return (
                f"text, because {len(odd):,} values are not {what}: {shown}; --missing if they mean missing"
            )
    if _all(pc.match_substring_regex(rest, _DATES)):
        return "text; write dates as 2000-12-31 to have days"
    if "|" in "".join(rest.slice(0, 100).to_pylist()):
        return "text; --list TABLE.COLUMN='|' if these are lists"
    padded = pc.not_equal(rest, pc.utf8_trim_whitespace(rest))
    return "some begin or end with a space, which is kept" if _any(padded) else ""


def _without(texts: pa.Array, mask: pa.Array) -> pa.Array:
    return pc.if_else(pc.fill_null(mask, False), pa.scalar(None, pa.string()), texts)


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask, min_count=0).as_py())


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask, min_count=0).as_py())
