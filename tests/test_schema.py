"""Ids as people write them."""

from __future__ import annotations

import pytest

from mmlora.dates import parse_date
from mmlora.errors import UsageError
from mmlora.schema import IdTypes


def test_ids_of_texts_stay_as_they_are() -> None:
    assert IdTypes("string", "string", "string").parse("user", "007") == "007"


@pytest.mark.parametrize("text", ["7", "-7", str(2**63 - 1), str(-(2**63)), 7])
def test_whole_numbers_of_64_bits_are_ids(text: str | int) -> None:
    assert IdTypes().parse("user", text) == int(text)


@pytest.mark.parametrize("text", ["", "x", "1_000", " 7", "1.0", "٣", str(2**63), "9" * 5000])
def test_other_texts_are_no_ids_of_integers(text: str) -> None:
    with pytest.raises(ValueError):
        IdTypes().parse("user", text)


@pytest.mark.parametrize("text", ["0001-01-01", "1969-12-31", "9999-12-31", "31.12.2000", ""])
def test_dates_without_room_around_them_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is out of range|is not a date"):
        parse_date(text)
