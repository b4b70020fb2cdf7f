"""A bundle's manifest: which parts each domain's model consists of, and where they come from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypedDict

from mmlora.errors import ContractError
from mmlora.judgement import Judgement
from mmlora.names import ExpertPolicy
from mmlora.schema import FeatureContract, Id, IdTypes, fingerprint, midnight

FORMAT = 1
_EVERY_DOMAINS = ("encoder", "backbone", "calibration")


class ExpertPart(NamedTuple):
    """One expert.

    Attributes:
        domain: the domain on whose rows it was trained.
        slot: which of the domain's experts it is, from 0.
        part: hash of its tensors.
    """

    domain: Id
    slot: int
    part: str

    @property
    def role(self) -> str:
        """The part's role in its bundle."""
        return f"expert:{self.domain}:{self.slot}"


class MixedExpert(NamedTuple):
    """An expert in a domain's mixture.

    Attributes:
        domain: the domain on whose rows it was trained.
        slot: which of that domain's experts it is, from 0.
        part: hash of its tensors.
        weight: its weight.
    """

    domain: Id
    slot: int
    part: str
    weight: float

    @property
    def role(self) -> str:
        """The part's role in its bundle."""
        return ExpertPart(*self[:3]).role


@dataclass(frozen=True)
class Mixture:
    """What one domain gets in addition to the whole model's training: the experts it mixes, and its shift.

    Attributes:
        domain: the domain; it needn't be a training domain.
        experts: the experts it mixes; none for the backbone alone.
        shift: the calibration's shift for the domain.
        as_of: its rows were read as of midnight of this day.
        rows: number of rows that decided.
        gain: the auc minus that of the whole model (of the backbone, for an expert of its own) on rows that
            didn't choose the weights, with the bounds of its interval; None if it can't be measured.
        reason: why it has these experts, in a clause.
    """

    domain: Id
    experts: tuple[MixedExpert, ...]
    shift: float
    as_of: date
    rows: int
    gain: tuple[float, float, float] | None
    reason: str

    @property
    def kind(self) -> ExpertPolicy:
        """Whether the domain uses its own experts, other domains' or none."""
        if not self.experts:
            return "backbone"
        return "own" if any(expert.domain == self.domain for expert in self.experts) else "shared"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        experts = [expert._asdict() for expert in self.experts]
        return {**vars(self), "experts": experts, "as_of": self.as_of.isoformat()}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Mixture:
        """Read back what :meth:`to_json` returned."""
        experts = tuple(MixedExpert(**expert) for expert in raw["experts"])
        gain = None if raw["gain"] is None else tuple(raw["gain"])
        return cls(**{**raw, "experts": experts, "gain": gain, "as_of": date.fromisoformat(raw["as_of"])})


class TrainingFacts(TypedDict):
    """The fields of a manifest that say when and from what a run trained, and how the model did."""

    as_of: date
    data_fingerprint: str
    metrics: Mapping[str, Any]
    judgement: Judgement | None
    tuning: Mapping[str, Any] | None
    code_version: str


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The composition of a bundle; parts are hashes in the :class:`~mmlora.registry.parts.PartStore`.

    Attributes:
        as_of: the training data was read as of midnight of this day.
        spec: the model's specification, from ``ModelSpec.to_dict``.
        contract: the features that it was trained on; scoring refuses others.
        encoder: part with the encoder's specification, which names its vocabularies' parts.
        backbone: part with the backbone's tensors.
        calibration: part with the calibration, from ``Calibration.to_json``.
        experts: the experts, in the gate's order.
        gate: part with the gate's tensors; None without a trained gate.
        training_domains: the training domains, sorted; a domain's index in the model is its position.
        ids: the id columns' types.
        block_rows: number of rows of a scoring block.
        data_fingerprint: fingerprint of the training data.
        metrics: by phase, then by domain or other keys of the caller's; JSON-ready, None for unknown values.
        code_version: mmlora's version.
        judgement: comparison of the model with its baselines; None if there was none. It is not
            part of the version, which depends only on the model itself.
        tuning: the settings that were tried on validation rows and their results, JSON-ready; None if none
            were. It is not part of the version either.
        judged: part with the manifest of the model as it was judged, before it was trained on all rows; None
            if it was registered as it was judged. Not part of the version, like the next.
        seen_until: by domain, the last moment (ISO 8601) of the rows that it may have learned from; None if
            these are all rows of before ``as_of``.
        profile: part with the features' profile by domain (:mod:`mmlora.checks.feature_profile`); None in
            models of before there was one. It is not part of the version.
        base: the version with which it shares all parts except one domain's experts; None if trained whole.
        start: the version with whose weights its training began; None if it began at random.
        mixtures: the domains whose experts were chosen after the training, at most one per domain; the gate
            doesn't apply to them.
        format: version of this layout.
        created_at: time of creation; not part of the version.
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
    judged: str | None = field(default=None, compare=False)
    seen_until: Mapping[str, str] | None = field(default=None, compare=False)
    profile: str | None = field(default=None, compare=False)
    base: str | None = None
    start: str | None = None
    mixtures: tuple[Mixture, ...] = ()
    format: int = FORMAT
    created_at: datetime = field(default_factory=_now, compare=False)

    @property
    def contract_hash(self) -> str:
        """The feature contract's hash."""
        return self.contract.hash

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over what the model consists of, and not over how it did or what it had seen."""
        return fingerprint(self._content())

    @property
    def model_version(self) -> str:
        """The as-of day and the first 8 digits of the content hash, e.g. ``20001230-1f2e3d4c``."""
        return f"{self.as_of:%Y%m%d}-{self.content_hash[:8]}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that the manifest names directly."""
        mixed = [expert.part for mixture in self.mixtures for expert in mixture.experts]
        experts = [expert.part for expert in self.experts]
        shared = (self.encoder, self.backbone, self.calibration, self.gate, self.profile)
        named = (*shared, *experts, *mixed)
        return tuple(dict.fromkeys(part for part in named if part is not None))

    @property
    def roles(self) -> dict[str, str]:
        """Every part of the training by its role; an expert's role is ``expert:domain:slot``."""
        shared = {"encoder": self.encoder, "backbone": self.backbone, "calibration": self.calibration}
        experts = {expert.role: expert.part for expert in self.experts}
        return {**shared, **experts, **({} if self.gate is None else {"gate": self.gate})}

    def last_seen(self, domain: Id) -> datetime:
        """Return the last moment of a domain's rows that the model may have learned from."""
        if self.seen_until:
            newest = max(self.seen_until.values())
            return datetime.fromisoformat(self.seen_until.get(str(domain), newest))
        # A composition may have parts of a model of a later day.
        return midnight(self.as_of) if self.base is None else self.created_at

    @property
    def learned_until(self) -> datetime:
        """The moment before which are all rows that any of its parts may have learned from."""
        mixed = [midnight(mixture.as_of) for mixture in self.mixtures]
        return max([midnight(self.as_of), *mixed, *map(self.last_seen, self.training_domains)])

    def seen_with(self, domain: Id, moment: datetime) -> dict[str, str]:
        """Return ``seen_until`` of a composition that learned from a domain's rows up to a later moment."""
        known = dict.fromkeys((*self.training_domains, *(own.domain for own in self.mixtures), domain))
        seen = {name: self.last_seen(name) for name in known}
        seen[domain] = max(seen[domain], moment)
        return {str(name): last.isoformat() for name, last in seen.items()}

    def parts_of(self, domain: Id) -> dict[str, str]:
        """Return the parts that a domain's scores depend on, by role.

        Under ``mlora`` these include only its own experts; under ``moe_mlora`` the gate mixes all domains'
        experts. A domain with a mixture has that mixture's, and a domain absent at training the backbone
        alone.
        """
        mixture = self.mixture_of(domain)
        if mixture is not None or domain not in self.training_domains:
            shared = {role: part for role, part in self.roles.items() if role in _EVERY_DOMAINS}
            return shared | {expert.role: expert.part for expert in (mixture.experts if mixture else ())}
        mixed = self.spec["adaptation"] == "moe_mlora"
        others = {e.role for e in self.experts if not mixed and e.domain != domain}
        return {role: part for role, part in self.roles.items() if role not in others}

    def mixture_of(self, domain: Id) -> Mixture | None:
        """Return the mixture of a domain; None if it has what the training gave it."""
        return next((mixture for mixture in self.mixtures if mixture.domain == domain), None)

    def with_mixture(self, mixture: Mixture) -> Manifest:
        """Return a manifest with a domain's mixture added or replaced, and every other part unchanged."""
        others = [own for own in self.mixtures if own.domain != mixture.domain]
        made = replace(self, mixtures=(*others, mixture), judged=None, created_at=_now())
        return replace(made, seen_until=self.seen_with(mixture.domain, midnight(mixture.as_of)))

    def without_mixture(self, domain: Id) -> Manifest:
        """Return a manifest in which a domain of the training has what the training gave it."""
        mixtures = tuple(own for own in self.mixtures if own.domain != domain)
        return replace(self, mixtures=mixtures, created_at=_now())

    def with_expert(self, domain: Id, slot: int, part: str) -> Manifest:
        """Return a manifest with one expert replaced and every other part unchanged.

        The domain's mixture, if it has one, is removed: it was chosen for want of this expert.

        Raises:
            ContractError: there is no such expert.
        """
        places = [n for n, e in enumerate(self.experts) if (e.domain, e.slot) == (domain, slot)]
        if not places:
            held = [(e.domain, e.slot) for e in self.experts]
            raise ContractError(
                f"domain {domain!r} has no expert {slot} to replace; the experts (domain, slot) are {held}",
                expected=held,
                found=(domain, slot),
            )
        exchanged = list(self.experts)
        exchanged[places[0]] = ExpertPart(domain, slot, part)
        mixtures = tuple(mixture for mixture in self.mixtures if mixture.domain != domain)
        return replace(self, experts=tuple(exchanged), mixtures=mixtures, created_at=_now())

    def to_json(self) -> str:
        """Return :meth:`to_stored` as readable JSON."""
        return json.dumps(self.to_stored(), indent=2, ensure_ascii=False, allow_nan=False)

    def to_stored(self) -> dict[str, Any]:
        """Return a JSON-ready mapping, including version and contract hash for other readers."""
        raw: dict[str, Any] = {
            "model_version": self.model_version,
            "contract_hash": self.contract_hash,
            **self._content(),
            "judgement": self.judgement and self.judgement.to_json(),
            "tuning": self.tuning,
            "judged": self.judged,
            "seen_until": self.seen_until,
            "profile": self.profile,
            "created_at": self.created_at.isoformat(),
        }
        raw["document_hash"] = _document_hash(raw)
        return raw

    @classmethod
    @lru_cache(maxsize=16)  # a night opens the same champions for each domain
    def from_json(cls, text: str) -> Manifest:
        """Read back what :meth:`to_json` wrote (``ContractError`` like :meth:`from_stored`)."""
        return cls.from_stored(json.loads(text))

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Manifest:
        """Read back what :meth:`to_stored` returned.

        Raises:
            ContractError: it has another layout, or was changed after it was written.
        """
        raw = dict(stored)
        document_hash = raw.pop("document_hash", None)  # None in one of an earlier mmlora
        found = _document_hash(raw)
        version, contract_hash = raw.pop("model_version"), raw.pop("contract_hash")
        if raw["format"] != FORMAT:
            raise ContractError(
                f"bundle {version} has layout {raw['format']}, but this mmlora reads {FORMAT}: train again",
                expected=FORMAT,
                found=raw["format"],
            )
        if document_hash not in (None, found):
            raise _changed(version, found)
        raw["as_of"] = date.fromisoformat(raw["as_of"])
        raw["contract"] = FeatureContract.from_json(json.dumps(raw["contract"]))
        raw["experts"] = tuple(ExpertPart(**expert) for expert in raw["experts"])
        raw["training_domains"] = tuple(raw["training_domains"])
        raw["ids"] = IdTypes(**raw["ids"])
        raw["mixtures"] = tuple(map(Mixture.from_json, raw.get("mixtures", ())))
        if raw.get("judgement") is not None:
            raw["judgement"] = Judgement.from_json(raw["judgement"])
        raw["created_at"] = datetime.fromisoformat(raw["created_at"])
        manifest = cls(**raw)
        if (manifest.model_version, manifest.contract_hash) != (version, contract_hash):
            raise _changed(version, manifest.model_version)
        return manifest

    def _content(self) -> dict[str, object]:
        raw = asdict(self)
        for name in ("created_at", "judgement", "tuning", "judged", "seen_until", "profile"):
            del raw[name]
        for name in ("base", "start"):
            if raw[name] is None:  # left out, so that versions are the same as before there were any
                del raw[name]
        del raw["mixtures"]
        if self.mixtures:  # left out where there are none, for the same reason
            raw["mixtures"] = [mixture.to_json() for mixture in self.mixtures]
        raw["as_of"] = self.as_of.isoformat()
        raw["contract"] = json.loads(self.contract.to_json())
        raw["experts"] = [expert._asdict() for expert in self.experts]
        # A round trip through JSON, so that what is hashed is what will be read back (tuples, keys).
        content: dict[str, object] = json.loads(json.dumps(raw, allow_nan=False))
        return content


def _document_hash(raw: Mapping[str, Any]) -> str:
    """Return a hash over all of a manifest, also over what isn't part of the version."""
    return fingerprint(json.loads(json.dumps(raw, allow_nan=False)))


def _changed(version: str, found: str) -> ContractError:
    message = f"bundle {version}: its manifest was changed after it was written; restore it or train again"
    return ContractError(message, expected=version, found=found)
