"""Bundles: manifests by version, and the models, encoders and calibrations that they compose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.errors import ContractError, DataError, MmloraError, UsageError
from mmlora.files import write_atomically
from mmlora.load_checks import ExpertUse
from mmlora.registry.manifest import ExpertPart, Manifest, Mixture
from mmlora.registry.parts import PartStore
from mmlora.schema import FeatureContract, Id, midnight

if TYPE_CHECKING:
    from mmlora.encoding import Encoder
    from mmlora.models.builder import Model
    from mmlora.models.by_domain import ModelByDomain
    from mmlora.models.calibration import Calibration
    from mmlora.models.ctr import CTRModel
    from mmlora.models.spec import ModelSpec

__all__ = ["Bundle", "BundleStore", "ExpertPart", "Manifest", "put_encoder"]


def put_encoder(parts: PartStore, encoder: Encoder) -> str:
    """Store an encoder: each vocabulary as its own part, and a part that names them."""
    tables = {name: parts.put_table(table) for name, table in encoder.to_tables().items()}
    return parts.put_json({"spec": encoder.spec(), "tables": tables})


@dataclass(frozen=True)
class Bundle:
    """A trained model and everything needed to score with it.

    Attributes:
        manifest: its composition.
        parts: the store of its parts.
    """

    manifest: Manifest
    parts: PartStore

    @property
    def contract(self) -> FeatureContract:
        """The features that the model was trained on."""
        return self.manifest.contract

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration from logits to probabilities."""
        from mmlora.models.calibration import Calibration

        return Calibration.from_json(self.parts.json(self.manifest.calibration))

    @property
    def judged(self) -> Bundle:
        """The model as it was judged, before it was trained on all rows; itself if it wasn't.

        Raises:
            ContractError: the part with its manifest is missing or damaged.
        """
        part = self.manifest.judged
        return self if part is None else Bundle(Manifest.from_stored(self.parts.json(part)), self.parts)

    def encoder(self) -> Encoder:
        """Assemble the encoder.

        Raises:
            ContractError: a part is missing or damaged, or the encoder's features or domains differ from
                the manifest's.
        """
        from mmlora.encoding import Encoder

        stored = self.parts.json(self.manifest.encoder)
        tables = {name: self.parts.table(part) for name, part in stored["tables"].items()}
        encoder = Encoder.from_tables(stored["spec"], tables)
        found = (encoder.contract.hash, encoder.domains)
        expected = (self.manifest.contract_hash, self.manifest.training_domains)
        if found != expected:
            raise ContractError(
                f"bundle {self.manifest.model_version}: its encoder was fitted on other features or domains",
                expected=expected,
                found=found,
            )
        return encoder

    def model_spec(self) -> ModelSpec:
        """Return the model's specification."""
        from mmlora.models.spec import ModelSpec

        return ModelSpec.from_dict(self.manifest.spec)

    def calibration_of(self, domain: Id) -> Calibration:
        """Return the calibration for a domain's rows, with the shift of its mixture if it has one."""
        mixture = self.manifest.mixture_of(domain)
        return self.calibration if mixture is None else self.calibration.with_shift(mixture.shift)

    def model_of(self, domain: Id) -> Model:
        """Assemble the model for a domain's rows: the whole model's, or the domain's mixture of experts.

        Raises:
            ContractError: as :meth:`model`.
        """
        mixture = self.manifest.mixture_of(domain)
        return self.model() if mixture is None else self._mixed(mixture)

    def _mixed(self, mixture: Mixture) -> CTRModel:
        from mmlora.models.builder import assemble_mixture

        return assemble_mixture(
            self.model_spec(),
            backbone=self.parts.tensors(self.manifest.backbone),
            experts=[(expert.weight, self.parts.tensors(expert.part)) for expert in mixture.experts],
        )

    def model_by_domain(self) -> Model | ModelByDomain:
        """Assemble the model for rows of all training domains, each by its mixture if it has one.

        Raises:
            ContractError: as :meth:`model`.
        """
        from mmlora.models.by_domain import ModelByDomain
        from mmlora.models.ctr import CTRModel

        whole, mixtures = self.model(), self._trained_mixtures()
        if not mixtures:
            return whole
        assert isinstance(whole, CTRModel)  # trees have no experts to mix
        return ModelByDomain(whole, {index: self._mixed(mixture) for index, mixture in mixtures.items()})

    @property
    def calibration_by_domain(self) -> Calibration:
        """The calibration for rows of all training domains, with the shifts of mixtures."""
        shifts = list(self.calibration.domain_shifts)
        for index, mixture in self._trained_mixtures().items():
            shifts[index] = mixture.shift
        return replace(self.calibration, domain_shifts=tuple(shifts))

    def _trained_mixtures(self) -> dict[int, Mixture]:
        """Return the mixtures of training domains, by domain index."""
        known = self.manifest.training_domains
        return {known.index(m.domain): m for m in self.manifest.mixtures if m.domain in known}

    def experts_of(self, domain: Id, model: Model) -> ExpertUse:
        """Return which experts a domain's scores depend on, by the domain that trained them.

        Args:
            domain: the domain.
            model: the result of :meth:`model_of`.
        """
        mixture = self.manifest.mixture_of(domain)
        if mixture is not None:
            return ExpertUse.of(str(domain), [(str(e.domain), e.weight) for e in mixture.experts])
        from mmlora.models.ctr import CTRModel, is_zero

        experts, weights = self.manifest.experts, self.gate_weights(domain, model)
        if weights is None:  # they differ by row
            weights = [1 / len(experts)] * len(experts)
        used = [
            (str(expert.domain), weight)
            for number, (expert, weight) in enumerate(zip(experts, weights, strict=True))
            if isinstance(model, CTRModel) and not is_zero(model.expert_state(number))
        ]
        return ExpertUse.of(str(domain), used)

    def gate_weights(self, domain: Id, model: Model) -> list[float] | None:
        """Return the weight of each expert for a domain's rows, averaged over layers; None if rows differ.

        Args:
            domain: the domain; one absent at training has weights of 0.
            model: the result of :meth:`model`.
        """
        from mmlora.models.ctr import CTRModel
        from mmlora.models.folding import domain_weights

        known, experts = self.manifest.training_domains, self.manifest.experts
        if domain not in known or not isinstance(model, CTRModel) or not experts:
            return [0.0] * len(experts)
        layers = [domain_weights(gate, known.index(domain)) for gate in model.gates]
        fixed = [weights.tolist() for weights in layers if weights is not None]
        if len(fixed) < len(layers):
            return None
        return [sum(column) / len(layers) for column in zip(*fixed, strict=True)]

    def model(self) -> Model:
        """Assemble the model as it was trained, without mixtures, in evaluation mode, on the CPU.

        Raises:
            ContractError: a part is missing or damaged, or doesn't match the specification.
        """
        from mmlora.models.builder import stored_model

        manifest = self.manifest
        index = {domain: place for place, domain in enumerate(manifest.training_domains)}
        return stored_model(
            self.model_spec(),
            backbone=self.parts.tensors(manifest.backbone),
            experts=[(index[e.domain], self.parts.tensors(e.part)) for e in manifest.experts],
            gate=None if manifest.gate is None else self.parts.tensors(manifest.gate),
        )


class BundleStore:
    """Bundles under ``root/bundles``, their parts under ``root/parts``.

    Args:
        root: the registry's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.parts = PartStore(root / "parts")

    def path(self, model_version: str) -> Path:
        """Return a bundle's folder."""
        return self.root / "bundles" / model_version

    def exists(self, model_version: str) -> bool:
        """Return whether the bundle exists."""
        return (self.path(model_version) / "manifest.json").exists()

    def is_whole(self, model_version: str) -> bool:
        """Return whether a bundle's manifest is as it was written."""
        try:
            self._manifest(model_version)
        except (OSError, MmloraError):
            return False
        return True

    def save_judged(self, manifest: Manifest) -> str:
        """Store the manifest of a model as it was judged, and return its part (see :attr:`Bundle.judged`)."""
        fixed = replace(manifest, created_at=midnight(manifest.as_of))  # the same model is the same part
        return self.parts.put_json(fixed.to_stored())

    def save(self, manifest: Manifest) -> str:
        """Store a manifest whose parts are already stored; a whole one that is there already stays as it is.

        Returns:
            The model version.

        Raises:
            ContractError: a part doesn't exist, or the manifest contradicts itself.
        """
        if absent := [part for part in manifest.parts if part not in self.parts]:
            raise ContractError(
                f"parts {absent} are not in {self.parts.root}: store them first", expected=absent
            )
        if strangers := [e.domain for e in manifest.experts if e.domain not in manifest.training_domains]:
            raise ContractError(
                f"the manifest has experts of {strangers}, which are not training domains",
                expected=manifest.training_domains,
                found=strangers,
            )
        version = manifest.model_version
        if not self.is_whole(version):
            write_atomically(self.path(version) / "manifest.json", manifest.to_json().encode())
        return version

    def load(self, model_version: str) -> Bundle:
        """Open a bundle.

        Raises:
            UsageError: there is no such version.
            ContractError: its manifest was changed after it was written.
        """
        if not self.exists(model_version):
            known = ", ".join(self.versions()[-5:]) or "none: train first"
            raise UsageError(f"there is no model version {model_version!r}; the latest are {known}")
        return Bundle(self._manifest(model_version), self.parts)

    def versions(self) -> list[str]:
        """Return all versions, sorted by as-of day, then by time of creation."""
        names = [file.parent.name for file in self.root.glob("bundles/[!.]*/manifest.json")]
        manifests: Mapping[str, Manifest] = {name: self._manifest(name) for name in names}
        return sorted(names, key=lambda name: (manifests[name].as_of, manifests[name].created_at, name))

    def _manifest(self, model_version: str) -> Manifest:
        file = self.path(model_version) / "manifest.json"
        try:
            manifest = Manifest.from_json(file.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError, AttributeError, DataError) as error:
            raise ContractError(
                f"{file} is broken ({type(error).__name__}: {error}): restore it, or train again"
            ) from None
        if manifest.model_version != model_version:
            raise ContractError(
                f"{file} is the manifest of {manifest.model_version}: restore it, or train again",
                expected=model_version,
                found=manifest.model_version,
            )
        return manifest
