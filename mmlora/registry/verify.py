"""Verifying stored bundles: the manifest, and every part that it names, by hash.

Files are read in blocks, and a part is hashed once, however many bundles share it.
"""

from __future__ import annotations

from collections.abc import Iterator

from mmlora.errors import MmloraError
from mmlora.registry.bundle import BundleStore
from mmlora.registry.manifest import Manifest

_JSON_ROLES = ("encoder", "calibration")


class BundleVerifier:
    """Verifies bundles of one store.

    Args:
        store: where they are.
    """

    def __init__(self, store: BundleStore) -> None:
        self._store = store
        self._bundles: dict[str, tuple[str, ...]] = {}
        self._parts: dict[tuple[str, str], str] = {}

    @property
    def parts(self) -> int:
        """How many parts were hashed."""
        return len(self._parts)

    def faults(self, model_version: str) -> tuple[str, ...]:
        """Return what is wrong with a bundle, a sentence each; nothing when it is as it was stored."""
        if model_version not in self._bundles:
            self._bundles[model_version] = tuple(self._verify(model_version))
        return self._bundles[model_version]

    def _verify(self, model_version: str) -> Iterator[str]:
        if not self._store.exists(model_version):
            yield f"there is no bundle {self._store.path(model_version)}"
            return
        try:
            manifest = self._store.load(model_version).manifest
        except (OSError, MmloraError) as error:
            yield str(error)
            return
        faults = dict(self._faulty_parts(manifest))
        yield from (f"{role}: {fault}" for role, fault in faults.items())
        if (judged := manifest.judged) is not None:  # with which challengers are compared
            for role, fault in self._faulty_judged(judged):
                if fault not in faults.values():  # they may share the part
                    yield f"as judged, {role}: {fault}"

    def _faulty_parts(self, manifest: Manifest) -> Iterator[tuple[str, str]]:
        for role, part in manifest.roles.items():
            if fault := self._fault(part, "json" if role in _JSON_ROLES else "safetensors"):
                yield role, fault
        for mixture in manifest.mixtures:
            for expert in mixture.experts:
                if fault := self._fault(expert.part, "safetensors"):
                    yield f"{expert.role} in the mixture of {mixture.domain}", fault
        if manifest.profile and (fault := self._fault(manifest.profile, "json")):
            yield "feature profile", fault
        if not self._fault(manifest.encoder, "json"):
            for name, part in self._store.parts.json(manifest.encoder)["tables"].items():
                if fault := self._fault(part, "parquet"):
                    yield f"vocabulary {name}", fault

    def _faulty_judged(self, part: str) -> Iterator[tuple[str, str]]:
        if fault := self._fault(part, "json"):
            yield "manifest", fault
        else:
            yield from self._faulty_parts(Manifest.from_stored(self._store.parts.json(part)))

    def _fault(self, part: str, suffix: str) -> str:
        if (part, suffix) not in self._parts:
            self._parts[part, suffix] = self._store.parts.fault(part, suffix)
        return self._parts[part, suffix]
