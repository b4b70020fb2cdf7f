"""The options of an import: how tables are to be read."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field

from mmlora.errors import UsageError
from mmlora.schema import INTERACTION_KEY, KNOWN_AT, LABEL, Entity

RENAMEABLE = (*INTERACTION_KEY, LABEL, KNOWN_AT)
TABLES: dict[str, Entity] = {"users": "user", "items": "item", "domains": "domain"}
"""The profile tables' names in options."""
TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
"""Units of epoch numbers in microseconds (ns: a thousandth)."""
FIRST, IMPORT = "first-interaction", "import"
"""What ``valid_from`` takes beside a column or a date."""


@dataclass(frozen=True)
class ReadOptions:
    """The user's options for reading tables.

    Attributes:
        columns: canonical name -> the data's own name, e.g. ``{"label": "clicked"}``. In profile tables it
            applies to the id and to event_timestamp.
        lists: separators of list columns, e.g. ``{"users.tags": ","}``; ``json`` for arrays.
        texts: columns that stay texts whatever they look like, e.g. ``users.zip``.
        missing: markers of missing values in CSV, besides the usual ones.
        valid_from: by table, from when undated profiles are valid: one of its date columns, an ISO date,
            ``first-interaction`` or ``import``.
        encoding: encoding of CSV; None means UTF-8, or what the byte-order mark says.
        delimiter: delimiter of CSV; None means what the header shows.
        decimal: the decimal point of CSV.
        time_unit: unit of epoch numbers: ``s``, ``ms``, ``us`` or ``ns``.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    valid_from: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    decimal: str = "."
    time_unit: str = "s"

    def texts_of(self) -> dict[Entity, list[str]]:
        """Return the columns that stay texts by entity."""
        found: dict[Entity, list[str]] = {entity: [] for entity in TABLES.values()}
        for full in self.texts:
            table, _, column = full.partition(".")
            found[TABLES[table]].append(column)
        return found

    def check(self) -> None:
        """Refuse invalid options.

        Raises:
            UsageError: an option is invalid; says what is valid.
        """
        if unknown := [name for name in self.columns if name not in RENAMEABLE]:
            valid = ", ".join(RENAMEABLE)
            raise UsageError(f"can't rename a column to {', '.join(unknown)}; valid are {valid}")
        for option, names in (("--list", self.lists), ("--text", self.texts)):
            for name in names:
                table, _, column = name.partition(".")
                if table not in TABLES or not column:
                    raise UsageError(f"{option} {name}: write TABLE.COLUMN; tables are {', '.join(TABLES)}")
        if wrong := [name for name in self.valid_from if name not in TABLES]:
            raise UsageError(
                f"--valid-from {wrong[0]}: there is no such table; valid are {', '.join(TABLES)}"
            )
        if self.time_unit not in TIME_UNITS:
            raise UsageError(f"--time-unit {self.time_unit}: valid are {', '.join(TIME_UNITS)}")
        if self.decimal not in (".", ","):
            raise UsageError(f"--decimal {self.decimal}: valid are . and ,")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise UsageError(f"--delimiter {self.delimiter!r}: give one character (a tab as $'\\t')")
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise UsageError(
                f"--encoding {self.encoding}: unknown; valid are utf-8, utf-16, latin-1, cp1252 and so on"
            ) from None
