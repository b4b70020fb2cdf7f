"""Experts for a domain that has none: those of other domains, or its own, on a model that stays as it is.

The rows that decide are rows that the model wasn't trained on: all rows of a domain that is new to it, and
the rows since its as-of date of any other. Each choice needs evidence beyond noise; otherwise the domain
has what the whole model gives it. The result is a :class:`~mmlora.registry.manifest.Mixture`: no other
domain's parts change.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from mmlora.errors import DataError
from mmlora.hyperparameters import Optimisation
from mmlora.registry.manifest import ExpertPart, MixedExpert, Mixture
from mmlora.runs.built_features import ensure_features
from mmlora.runs.contract import check_contract, feature_group
from mmlora.runs.training_run import options_from
from mmlora.runs.training_set import read_rows
from mmlora.runs.verdicts import verdict_as_of
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, ITEM_ID, LABEL, USER_ID, Id, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.batch import Batch
    from mmlora.encoding import EncodedColumns, Encoder
    from mmlora.models.ctr import State
    from mmlora.registry.bundle import Bundle
    from mmlora.training.epoch import RowNumbers, SplitPart
    from mmlora.training.sharing import Shared

logger = logging.getLogger(__name__)

MOST_ROWS = 100_000
"""The newest rows of a domain that are read."""
LEAST_OF_EACH_LABEL = 10
GROWTH = 1.5
"""A domain with a mixture is decided again once its rows have grown by this factor."""
_VALIDATION_SHARE = 0.3


@dataclass(frozen=True)
class Undecided:
    """The rows don't decide anything, so the domain keeps what it has.

    Attributes:
        rows: their number.
        reason: why, in a clause.
    """

    rows: int
    reason: str


def share(
    workspace: Workspace, base: Bundle, domain: Id, as_of: date, *, again: bool = False
) -> Mixture | Undecided:
    """Choose a domain's experts on the rows known at ``as_of`` 00:00 UTC.

    Args:
        workspace: the workspace.
        base: the model.
        domain: the domain.
        as_of: the date.
        again: decide again even if the rows have hardly grown since the last time.

    Raises:
        ContractError: the model's features are no longer available.
    """
    try:
        table = _rows(workspace, base, domain, as_of)
    except DataError:  # there are none at all
        return Undecided(0, "0 rows: too few to tell")
    labels = table[LABEL].to_numpy()
    fewest = int(min(labels.sum(), len(labels) - labels.sum())) if len(labels) else 0
    if fewest < LEAST_OF_EACH_LABEL:
        reason = f"{len(labels):,} rows, of which {fewest} of the rarer label: too few to tell"
        return Undecided(len(labels), reason)
    before = base.manifest.mixture_of(domain)
    if before is not None and not again and not _has_grown(table, before):
        return Undecided(len(labels), f"decided on {before.rows:,} rows, and again once there are more")
    verdict = verdict_as_of(workspace, as_of, domain)
    if verdict is not None and verdict.verdict == "broken":
        return Undecided(len(labels), f"its verdict as of {as_of} is broken")
    data = _DomainRows.read(workspace, base, table)
    rich = verdict is not None and verdict.verdict == "rich"
    return _Choice(workspace, base, domain, as_of, data, rich).mixture(kept_experts(base))


def _has_grown(rows: pa.Table, before: Mixture) -> bool:
    """Return whether a domain has so many rows more, or so many new ones if only the newest are read."""
    import pyarrow.compute as pc

    new = pc.sum(pc.greater_equal(rows[EVENT_TIMESTAMP], midnight(before.as_of))).as_py() or 0
    return bool(rows.num_rows >= GROWTH * before.rows or new >= (1 - 1 / GROWTH) * rows.num_rows)


def kept_experts(base: Bundle) -> list[tuple[ExpertPart, State]]:
    """Return the trained experts that change any score, with their tensors."""
    from mmlora.models.ctr import is_zero

    stored = [(expert, base.parts.tensors(expert.part)) for expert in base.manifest.experts]
    return [(expert, state) for expert, state in stored if not is_zero(state)]


@dataclass(frozen=True)
class _Choice:
    """The choice between the backbone, shared experts and an own expert."""

    workspace: Workspace
    base: Bundle
    domain: Id
    as_of: date
    data: _DomainRows
    rich: bool

    def mixture(self, experts: Sequence[tuple[ExpertPart, State]]) -> Mixture:
        shared = self._shared([state for _, state in experts])
        adapts = self.base.model_spec().adaptation != "none"
        own = self._own() if self.rich and adapts else None
        if own is not None and self._beats(own, shared):
            return self._with_own(own)
        weights = shared.weights.tolist()
        mixed = [
            MixedExpert(*expert, weight)
            for (expert, _), weight in zip(experts, weights, strict=True)
            if weight
        ]
        reason = "the experts of similar domains gain more than noise"
        if not mixed:
            reason = "no expert gains more than noise" if experts else "the model has no expert to share"
        return self._made(tuple(mixed), shared.logits, shared.gain, reason)

    def _shared(self, states: Sequence[State]) -> Shared:
        from mmlora.models.ctr import CTRModel
        from mmlora.training.sharing import share_experts

        model, options = self.base.model(), self.workspace.settings.training.of(Optimisation)
        assert isinstance(model, CTRModel)  # trees have no experts
        return share_experts(
            model,
            self.base.model_spec(),
            self._backbone(),
            states,
            self.data,
            np.arange(len(self.data.label)),
            confidence=options["expert_confidence"] or 0.95,
            seed=options["seed"],
        )

    def _own(self) -> _OwnExpert | None:
        """Train an expert of the domain's own; None if it gains no more than noise."""
        from mmlora.training.observer import SilentObserver
        from mmlora.training.phases import train_expert

        options = options_from(self.workspace.settings.training, self.workspace)
        options = replace(options, expert_confidence=options.expert_confidence or 0.95)
        result = train_expert(
            self.base.model_spec(),
            self._backbone(),
            self.data,
            domain=-1,
            options=options,
            observer=SilentObserver(),
        )
        if not result.report.helped or result.report.gain is None:
            return None
        return _OwnExpert(result.state, result.report.gain)

    def _beats(self, own: _OwnExpert, shared: Shared) -> bool:
        """Return whether an own expert has less log loss than the shared ones, on rows that chose neither."""
        from mmlora.training.evidence import halves
        from mmlora.training.sharing import shifted_loss

        rows = halves(self.data.rows("validation"))[1]
        labels = self.data.label[rows].astype(np.float64)
        return shifted_loss(self._logits(own, rows), labels) < shifted_loss(shared.logits[rows], labels)

    def _with_own(self, own: _OwnExpert) -> Mixture:
        part = self.base.parts.put_tensors(own.state)
        logits = self._logits(own, np.arange(len(self.data.label)))
        expert = MixedExpert(self.domain, 0, part, 1.0)
        return self._made((expert,), logits, own.gain, "its own expert gains more than noise")

    def _logits(self, own: _OwnExpert, rows: RowNumbers) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        from mmlora.models.builder import assemble_mixture
        from mmlora.training.loop import predict

        model = assemble_mixture(
            self.base.model_spec(), backbone=self._backbone(), experts=[(1.0, own.state)]
        )
        return np.asarray(predict(model, self.data, rows)[0], np.float64)

    def _made(
        self,
        experts: tuple[MixedExpert, ...],
        logits: np.ndarray[tuple[int], np.dtype[np.float64]],
        gain: tuple[float, float, float] | None,
        reason: str,
    ) -> Mixture:
        from mmlora.models.calibration import own_shift

        shift = own_shift(self.base.calibration, logits, self.data.label)
        gain = None if gain is None else (round(gain[0], 6), round(gain[1], 6), round(gain[2], 6))
        return Mixture(self.domain, experts, shift, self.as_of, len(logits), gain, reason)

    def _backbone(self) -> State:
        return self.base.parts.tensors(self.base.manifest.backbone)


@dataclass(frozen=True)
class _OwnExpert:
    """An expert of the domain's own, and its gain with the bounds of the interval."""

    state: State
    gain: tuple[float, float, float]


@dataclass(frozen=True)
class _DomainRows:
    """One domain's encoded rows in memory, as training data.

    Attributes:
        encoder: the encoder of the model.
        columns: its inputs.
        label: 0/1, ``[N]`` float32, from the oldest row to the newest.
        domain: -1 for every row, ``[N]``, because all are of one domain, which the model may not know.
        num_domains: number of the model's domains.
    """

    encoder: Encoder
    columns: EncodedColumns
    label: np.ndarray[tuple[int], np.dtype[np.float32]]
    domain: np.ndarray[tuple[int], np.dtype[np.int32]]
    num_domains: int

    @classmethod
    def read(cls, workspace: Workspace, base: Bundle, rows: pa.Table) -> _DomainRows:
        """Read the features of a domain's rows."""
        encoder = base.encoder()
        entities = rows.select([USER_ID, ITEM_ID, DOMAIN_ID, EVENT_TIMESTAMP])
        columns = encoder.encode(workspace.feature_repo.retrieve(entities, base.contract))
        labels = rows[LABEL].to_numpy().astype(np.float32)
        domain = np.full(len(labels), -1, np.int32)
        return cls(encoder, columns, labels, domain, len(encoder.domains))

    def rows(self, split: SplitPart) -> RowNumbers:
        """Return the older rows to train on, the newer ones for validation; none for a test."""
        numbers = np.arange(len(self.label))
        first = int(len(numbers) * (1 - _VALIDATION_SHARE))
        return {"train": numbers[:first], "validation": numbers[first:], "test": numbers[:0]}[split]

    def batch(self, rows: RowNumbers) -> Batch:
        """Gather rows in the given order, labels included."""
        return self.encoder.assemble([(self.columns, rows)], label=self.label[rows])


def _rows(workspace: Workspace, base: Bundle, domain: Id, as_of: date) -> pa.Table:
    """Return a domain's newest rows that a model wasn't trained on, from the oldest to the newest."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if feature_group(base) == "all":
        ensure_features(workspace, as_of)
    check_contract(workspace, base)
    others = [str(name) for name in workspace.expected_domains() if name != domain]
    rows = read_rows(workspace, as_of, workspace.settings.training, others)
    if domain in base.manifest.training_domains:
        unseen = pa.scalar(midnight(base.manifest.as_of), rows[EVENT_TIMESTAMP].type)
        rows = rows.filter(pc.greater_equal(rows[EVENT_TIMESTAMP], unseen))
    rows = rows.sort_by([(EVENT_TIMESTAMP, "ascending"), (USER_ID, "ascending"), (ITEM_ID, "ascending")])
    return rows.slice(max(0, rows.num_rows - MOST_ROWS))
