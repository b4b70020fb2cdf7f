"""Hints for a missing column: which of the table's columns it may be."""

from __future__ import annotations

from collections.abc import Sequence

from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID

_OTHER_NAMES = {
    USER_ID: (
        "user",
        "uid",
        "customer",
        "customerid",
        "visitor",
        "visitorid",
        "member",
        "memberid",
        "account",
    ),
    ITEM_ID: (
        "item",
        "iid",
        "product",
        "productid",
        "sku",
        "article",
        "articleid",
        "movieid",
        "ad",
        "adid",
        "itemno",
    ),
    DOMAIN_ID: (
        "domain",
        "market",
        "country",
        "site",
        "theme",
        "themeid",
        "scene",
        "scenario",
        "channel",
        "segment",
    ),
    EVENT_TIMESTAMP: (
        "timestamp",
        "ts",
        "time",
        "date",
        "datetime",
        "eventtime",
        "eventts",
        "createdat",
        "when",
    ),
    LABEL: ("click", "clicked", "clicks", "isclick", "isclicked", "target", "y", "converted", "response"),
}


def missing(name: str, columns: Sequence[str]) -> str:
    """Return the message for a missing column."""
    text = f"missing; the table has {', '.join(columns)}"
    likely = [column for column in columns if _stands_for(name, column)]
    if likely:
        return f"{text}; if it is {likely[0]}, give --column {name}={likely[0]}"
    if len(columns) == 1:
        text += "; if these are several columns, give --delimiter"
    return text


def _stands_for(name: str, column: str) -> bool:
    letters = "".join(character for character in column.lower() if character.isalnum())
    return letters == name.replace("_", "") or letters in _OTHER_NAMES.get(name, ())
