"""Base of the frozen dataclasses that packages exchange and that are stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date
from functools import cache
from typing import Any, Self

from mmlora.errors import DataError, Fault


class Record:
    """A frozen dataclass with a JSON form; fields and keys have the same names, in the same order."""

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable mapping."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Build an instance from what :meth:`to_json` returned; missing keys take the fields' defaults.

        Raises:
            DataError: keys without a default are missing, or a value has the wrong type.
        """
        from pydantic import ValidationError

        kind: Any = cls
        try:
            record: Self = _reader(kind).validate_python(raw)
        except ValidationError as error:
            faults = [Fault(f"{'.'.join(map(str, e['loc']))}: {e['msg']}") for e in error.errors()]
            raise DataError(f"the stored {cls.__name__}", faults) from None
        return record


@cache
def _reader(cls: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value
