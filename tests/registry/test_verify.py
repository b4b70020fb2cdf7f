"""A bundle is verified down to the last part, and each part once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mmlora.registry.verify import BundleVerifier


def flip(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def swap(file: Path, other: Path) -> None:
    file.write_bytes(other.read_bytes())


def remove(file: Path, other: Path) -> None:
    file.unlink()


def part_file(trained, part: str) -> Path:
    (file,) = trained.store.parts.root.glob(f"{part}.*")
    return file


def parts_by_role(trained) -> dict[str, str]:
    tables = trained.store.parts.json(trained.manifest.encoder)["tables"]
    return {**trained.manifest.roles, **{f"vocabulary {name}": part for name, part in tables.items()}}


@pytest.mark.parametrize("damage", [flip, cut, swap, remove])
def test_each_damaged_part_is_named(trained, damage: Callable[[Path, Path], None]) -> None:
    version, parts = trained.store.save(trained.manifest), parts_by_role(trained)
    assert BundleVerifier(trained.store).faults(version) == ()
    assert any(role.startswith("vocabulary") for role in parts)
    for role, part in parts.items():
        file = part_file(trained, part)
        whole = file.read_bytes()
        damage(file, next(path for path in trained.store.parts.root.iterdir() if path != file))
        named = [role for role, named in parts.items() if named == part]
        faults = BundleVerifier(trained.store).faults(version)
        assert [fault.partition(": the file ")[0] for fault in faults] == named, role
        assert all(str(file) in fault for fault in faults)
        file.write_bytes(whole)
    assert BundleVerifier(trained.store).faults(version) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"block_rows": 1024', '"block_rows": 2048'),  # part of the version
        ('"judgement": null', '"judgement": {}'),
        ('"tuning": null', '"tuning": {"trials": []}'),
        ('"created_at": "20', '"created_at": "19'),
        ('"model_version": "20', '"model_version": "19'),
        ("}", ""),
    ],
)
def test_an_edited_manifest_is_named_and_stored_again(trained, old: str, new: str) -> None:
    version = trained.store.save(trained.manifest)
    file = trained.store.path(version) / "manifest.json"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text[::-1].replace(old[::-1], new[::-1], 1)[::-1], encoding="utf-8")
    (fault,) = BundleVerifier(trained.store).faults(version)
    assert "manifest" in fault
    assert trained.store.save(trained.manifest) == version
    assert file.read_text(encoding="utf-8") == text


def test_a_bundle_that_is_gone_is_named(trained) -> None:
    (fault,) = BundleVerifier(trained.store).faults("20010101-00000000")
    assert fault == f"there is no bundle {trained.store.path('20010101-00000000')}"


def test_a_part_is_hashed_once_whoever_names_it(trained) -> None:
    version = trained.store.save(trained.manifest)
    twin = trained.store.save(replace(trained.manifest, block_rows=4096))
    verifier = BundleVerifier(trained.store)
    assert verifier.faults(version) == ()
    number = verifier.parts
    assert number == len(set(parts_by_role(trained).values()))
    for part in trained.manifest.parts:
        if part != trained.manifest.encoder:  # read to find the vocabularies
            part_file(trained, part).unlink()
    assert verifier.faults(twin) == verifier.faults(version) == ()
    assert verifier.parts == number
