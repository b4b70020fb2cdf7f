"""Date formats in columns of texts and integers, and the DuckDB expressions that parse them."""

from __future__ import annotations

_ISO = r"^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([T ].*)?$"
_STRPTIME = {
    "%Y/%m/%d": r"^[0-9]{4}/[0-9]{1,2}/[0-9]{1,2}$",
    "%d.%m.%Y": r"^[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{4}$",
    "%m/%d/%Y": r"^[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}$",
    "%d/%m/%Y": r"^[0-9]{1,2}/[0-9]{1,2}/[0-9]{4}$",
    "%Y%m%d": r"^(19|20)[0-9]{6}$",
}
_EPOCH = {"epoch_s": 1.0, "epoch_ms": 1000.0}
ISO = "iso"
TEXT_FORMATS = (ISO, *_STRPTIME)
"""Date formats of text columns, in the order in which they are tried."""
NUMBER_FORMATS = ("%Y%m%d", *_EPOCH)
"""Date formats of integer columns, in the order in which they are tried."""
_FIRST, _LAST = 631_152_000, 4_102_444_800
"""1990 and 2100: integers outside are unlikely to be seconds since 1970."""


def parse_sql(column: str, written: str) -> str:
    """Return the expression that parses a column as TIMESTAMPTZ (null for other values), in a UTC session.

    Args:
        column: the column, quoted.
        written: one of ``TEXT_FORMATS`` or ``NUMBER_FORMATS``.
    """
    if written in _EPOCH:
        seconds = f"{column}::DOUBLE / {_EPOCH[written]}"
        return f"CASE WHEN {seconds} BETWEEN {_FIRST} AND {_LAST} THEN to_timestamp({seconds}) END"
    text = f"trim({column}::VARCHAR)"
    if written == ISO:
        return f"CASE WHEN regexp_matches({text}, '{_ISO}') THEN TRY_CAST({text} AS TIMESTAMPTZ) END"
    pattern = _STRPTIME[written]
    return (
        f"CASE WHEN regexp_matches({text}, '{pattern}') "
        f"THEN try_strptime({text}, '{written}')::TIMESTAMPTZ END"
    )
