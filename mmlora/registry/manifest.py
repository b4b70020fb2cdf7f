"""A bundle's manifest: which parts make up which domain's model, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from mmlora.errors import ContractError
from mmlora.judgement import Judgement
from mmlora.schema import FeatureContract, Id, IdTypes, fingerprint

FORMAT = 1
_EVERY_DOMAINS = ("encoder", "backbone", "calibration")


class ExpertPart(NamedTuple):
    """One expert.

    Attributes:
        domain: whose rows it was trained on.
        slot: which of the domain's experts it is, from 0.
        part: hash of its tensors.
    """

    domain: Id
    slot: int
    part: str

    @property
    def role(self) -> str:
        """What the part is to its bundle."""
        return f"expert:{self.domain}:{self.slot}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is made of; parts are hashes in the :class:`~mmlora.registry.parts.PartStore`.

    Attributes:
        as_of: the day whose midnight the training data was read as of.
        spec: the model's specification, as ``ModelSpec.to_dict`` gives it.
        contract: the features that it was trained on; scoring refuses others.
        encoder: part of the encoder's specification, which names its vocabularies' parts.
        backbone: part of the backbone's tensors.
        calibration: part of the calibration, as ``Calibration.to_dict`` gives it.
        experts: in the order that the gate mixes them.
        gate: part of the gate's tensors; None without a trained gate.
        training_domains: sorted; a domain's index in the model is its place.
        ids: the id columns' types.
        block_rows: rows of a scoring block.
        data_fingerprint: of the data that it was trained on.
        metrics: by phase, then by domain or what else the caller has; JSON-ready, None for what isn't known.
        code_version: of mmlora.
        judgement: what the model was compared with and how it did; None when it wasn't. It is no part of the
            version, which follows from what the model is.
        tuning: the settings that were tried on validation rows before, and what they brought, JSON-ready;
            None when none were. No part of the version either.
        base: the version that it shares all parts with but one domain's experts; None when trained whole.
        format: version of this layout.
        created_at: when it was put together; not part of the version.
    """

    as_of: date
    spec: Mapping[str, Any]
    contract: FeatureContract
    encoder: str
    backbone: str
    calibration: str
    experts: tuple[ExpertPart, ...] = ()
    gate: str | None = None
    training_domains: tuple[Id, ...]
    ids: IdTypes
    block_rows: int
    data_fingerprint: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    code_version: str
    judgement: Judgement | None = field(default=None, compare=False)
    tuning: Mapping[str, Any] | None = field(default=None, compare=False)
    base: str | None = None
    format: int = FORMAT
    created_at: datetime = field(default_factory=_now, compare=False)

    @property
    def contract_hash(self) -> str:
        """The feature contract's hash."""
        return self.contract.hash

    @property
    def content_hash(self) -> str:
        """SHA-256 over all but the judgement, the tuning and the time of creation."""
        return fingerprint(self._content())

    @property
    def model_version(self) -> str:
        """The as-of day and the first 8 digits of the content hash, e.g. ``20001230-1f2e3d4c``."""
        return f"{self.as_of:%Y%m%d}-{self.content_hash[:8]}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that the manifest names itself."""
        named = (self.encoder, self.backbone, self.calibration, self.gate, *(e.part for e in self.experts))
        return tuple(dict.fromkeys(part for part in named if part is not None))

    @property
    def roles(self) -> dict[str, str]:
        """Every part by its role, an expert's being ``expert:domain:slot``."""
        shared = {"encoder": self.encoder, "backbone": self.backbone, "calibration": self.calibration}
        experts = {expert.role: expert.part for expert in self.experts}
        return {**shared, **experts, **({} if self.gate is None else {"gate": self.gate})}

    def parts_of(self, domain: Id) -> dict[str, str]:
        """Return the parts that a domain's scores depend on, by role.

        Under ``mlora`` these are its own experts; under ``moe_mlora`` the gate mixes everybody's. A domain
        absent at training has the backbone alone.
        """
        if domain not in self.training_domains:
            return {role: part for role, part in self.roles.items() if role in _EVERY_DOMAINS}
        mixed = self.spec["adaptation"] == "moe_mlora"
        others = {e.role for e in self.experts if not mixed and e.domain != domain}
        return {role: part for role, part in self.roles.items() if role not in others}

    def with_expert(self, domain: Id, slot: int, part: str) -> Manifest:
        """Return a manifest with one expert exchanged and every other part the same, by hash.

        Raises:
            ContractError: there is no such expert.
        """
        places = [n for n, e in enumerate(self.experts) if (e.domain, e.slot) == (domain, slot)]
        if not places:
            held = [(e.domain, e.slot) for e in self.experts]
            raise ContractError(
                f"domain {domain!r} has no expert {slot} to exchange; there are (domain, slot) {held}",
                expected=held,
                found=(domain, slot),
            )
        exchanged = list(self.experts)
        exchanged[places[0]] = ExpertPart(domain, slot, part)
        return replace(self, experts=tuple(exchanged), created_at=_now())

    def to_json(self) -> str:
        """Return readable JSON, with version and contract hash for those who read it elsewhere."""
        raw = {
            "model_version": self.model_version,
            "contract_hash": self.contract_hash,
            **self._content(),
            "judgement": self.judgement and self.judgement.to_json(),
            "tuning": self.tuning,
            "created_at": self.created_at.isoformat(),
        }
        return json.dumps(raw, indent=2, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read back what :meth:`to_json` wrote.

        Raises:
            ContractError: it is of another layout, or was changed since.
        """
        raw = json.loads(text)
        version, contract_hash = raw.pop("model_version"), raw.pop("contract_hash")
        if raw["format"] != FORMAT:
            raise ContractError(
                f"bundle {version} has layout {raw['format']}, this code reads {FORMAT}: train again",
                expected=FORMAT,
                found=raw["format"],
            )
        raw["as_of"] = date.fromisoformat(raw["as_of"])
        raw["contract"] = FeatureContract.from_json(json.dumps(raw["contract"]))
        raw["experts"] = tuple(ExpertPart(**expert) for expert in raw["experts"])
        raw["training_domains"] = tuple(raw["training_domains"])
        raw["ids"] = IdTypes(**raw["ids"])
        if raw.get("judgement") is not None:
            raw["judgement"] = Judgement.from_json(raw["judgement"])
        raw["created_at"] = datetime.fromisoformat(raw["created_at"])
        manifest = cls(**raw)
        if (manifest.model_version, manifest.contract_hash) != (version, contract_hash):
            raise ContractError(
                f"bundle {version}'s manifest was changed after it was written: restore it, or train again",
                expected=version,
                found=manifest.model_version,
            )
        return manifest

    def _content(self) -> dict[str, Any]:
        raw = asdict(self)
        del raw["created_at"], raw["judgement"], raw["tuning"]
        if self.base is None:  # not named, so that a version doesn't depend on whether its code knew of bases
            del raw["base"]
        raw["as_of"] = self.as_of.isoformat()
        raw["contract"] = json.loads(self.contract.to_json())
        raw["experts"] = [expert._asdict() for expert in self.experts]
        # Through JSON once, so that what is hashed is what will be read back (tuples, keys).
        content: dict[str, Any] = json.loads(json.dumps(raw, allow_nan=False))
        return content
