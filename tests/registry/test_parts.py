from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from mmlora.errors import ContractError
from mmlora.registry.parts import PartStore


@pytest.fixture
def parts(tmp_path) -> PartStore:
    return PartStore(tmp_path / "parts")


def files(parts: PartStore) -> list[str]:
    return sorted(file.name for file in parts.root.iterdir())


def test_everything_comes_back_as_it_was(parts):
    tensors = {"b": torch.arange(6).reshape(2, 3).T, "a": torch.rand(3), "none": torch.zeros(0, 4)}
    table = pa.table({"value": pa.array(["", "ä", "z"])})
    value = {"mean": 0.1 + 0.2, "domains": ["ä", 1], "none": None}
    back = parts.tensors(parts.put_tensors(tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert parts.table(parts.put_table(table)) == table
    assert parts.json(parts.put_json(value)) == value


def test_the_same_content_is_one_part_however_it_is_laid_out(parts):
    one, two = torch.rand(2, 3), torch.rand(4)
    assert parts.put_tensors({"a": one, "b": two}) == parts.put_tensors({"b": two, "a": one.T.contiguous().T})
    whole = pa.table({"value": [1, 2, 3]})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)]).replace_schema_metadata({"note": "x"})
    assert parts.put_table(whole) == parts.put_table(pieces)
    assert parts.put_json({"a": 1, "b": 2}) == parts.put_json({"b": 2, "a": 1})
    assert len(files(parts)) == 3
    assert parts.put_json({"a": 1, "b": 3}) not in (parts.put_json({"a": 1, "b": 2}), None)


@pytest.mark.parametrize("kind", ["tensors", "table", "json"])
def test_a_tampered_or_missing_part_is_refused(parts, kind):
    value = {"tensors": {"a": torch.rand(9)}, "table": pa.table({"a": [1]}), "json": {"a": 1}}[kind]
    part = getattr(parts, f"put_{kind}")(value)
    (file,) = parts.root.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ContractError, match="was changed after it was stored") as caught:
        getattr(parts, kind)(part)
    assert caught.value.expected == part != caught.value.found
    getattr(parts, f"put_{kind}")(value)  # storing it again mends it
    getattr(parts, kind)(part)
    file.unlink()
    assert part not in parts
    with pytest.raises(ContractError, match="is missing"):
        getattr(parts, kind)(part)


def test_nothing_but_whole_parts_is_ever_there(parts, monkeypatch):
    parts.put_json({"a": 1})
    before = files(parts)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        parts.put_json({"a": 2})
    assert files(parts) == before


def test_numbers_that_json_lacks_are_refused(parts):
    with pytest.raises(ValueError, match="JSON"):
        parts.put_json({"mean": float("nan")})
