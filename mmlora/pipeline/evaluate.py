"""``mmlora evaluate``: measure published nights by what users then clicked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mmlora.check_rules import RULE_NAMES
from mmlora.errors import MmloraError, UsageError
from mmlora.nights.labels import LabelledNight, labelled_nights, published_nights, with_scores
from mmlora.nights.load import score
from mmlora.records import Record
from mmlora.schema import ITEM_ID, LABEL, SCORE, USER_ID
from mmlora.settings import QualitySettings
from mmlora.warehouse.quality import NightQuality, record_quality
from mmlora.workspace import Progress, Workspace, open_workspace, silent

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.warehouse.publish import Publication
    from mmlora.warehouse.warehouse import Warehouse

PREVIOUS = "previous"
_PARTS = "part-*.parquet"


@dataclass(frozen=True)
class Evaluation(Record):
    """What an evaluation found.

    Attributes:
        nights: the figures of each published night that has labels, by domain and date.
        unlabelled: published nights of the range without an interaction, e.g. because it is not imported yet.
        faults: figures outside of the limits that the settings set, one sentence each.
        notes: why a night has no figure of the model before, one sentence each.
    """

    nights: tuple[NightQuality, ...]
    unlabelled: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def evaluate(
    *,
    domains: Collection[str] = (),
    start: date | None = None,
    end: date | None = None,
    against: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Join what was published with the interactions of each date, and keep the figures.

    An interaction counts if its pair of user and item was published for its date, in the version that is
    known now. The figures describe what readers had, so they say nothing of pairs that were not shown.

    Args:
        domains: these domains; all when empty.
        start: the first score date; that of the first published night when None.
        end: the last score date; that of the newest when None.
        against: a model version, or ``previous`` for the champion before the model of each night: it scores
            the same pairs with the features of that date, and the difference in auc is reported.
        progress: called after every night.

    Raises:
        UsageError: nothing is published for these domains and dates, or a domain is unknown.
    """
    workspace = open_workspace()
    known_as_of = datetime.now(UTC)
    measured: list[NightQuality] = []
    notes: list[str] = []
    with workspace.open_warehouse() as warehouse:
        nights = published_nights(workspace, warehouse, domains, start, end)
        labels = labelled_nights(workspace, warehouse, nights, known_as_of)
        for done, (night, rows) in enumerate(labels, 1):
            if rows is not None:
                measured.append(_measure(workspace, warehouse, night, rows, against, notes))
            progress("evaluate", done, len(nights))
        record_quality(warehouse.database, warehouse.tables, measured)
    ordered = tuple(sorted(measured, key=lambda one: (str(one.domain_id), one.score_date)))
    faults = tuple(fault for one in ordered for fault in faults_of(one, workspace.settings.quality))
    return Evaluation(ordered, len(nights) - len(measured), faults, tuple(notes))


def faults_of(night: NightQuality, limits: QualitySettings) -> Iterator[str]:
    """Yield a sentence for each figure of a night that is outside of the limits."""
    if night.clicks < limits.min_clicks:
        return
    name = f"domain {night.domain_id} on {night.score_date}"
    if night.auc is not None and night.auc < limits.min_auc:
        yield f"{name}: auc {night.auc:.4f} is below {limits.min_auc:g}"
    highest = limits.max_miscalibration
    if night.calibration is not None and not 1 / highest <= night.calibration <= highest:
        yield (
            f"{name}: scores sum to {night.calibration:.3g} times the clicks; "
            f"{1 / highest:.3g} to {highest:g} is allowed"
        )
    if night.auc_gain_high is not None and night.auc_gain_high < 0:
        yield f"{name}: auc is {-(night.auc_gain or 0):.4f} below that of {night.against}, by more than noise"


def _measure(
    workspace: Workspace,
    warehouse: Warehouse,
    night: Publication,
    rows: LabelledNight,
    against: str | None,
    notes: list[str],
) -> NightQuality:
    from mmlora.metrics.probabilities import logloss
    from mmlora.metrics.ranking import auc

    label, value = (rows.scored[name].to_numpy() for name in (LABEL, SCORE))
    clicks = int((label > 0).sum())
    quality = NightQuality(
        night.domain_id,
        night.score_date,
        night.load_id,
        night.model_version,
        rows.impressions,
        len(label),
        clicks,
        auc(label, value),
        logloss(label, value),
        float(value.sum(dtype="float64")) / clicks if clicks else None,
    )
    if against is None or quality.auc is None:
        return quality
    try:
        other = _version(warehouse, night, against)
        return _compared(workspace, quality, rows.scored, other)
    except MmloraError as error:
        notes.append(f"domain {night.domain_id} on {night.score_date} is not compared: {error}")
        return quality


def _version(warehouse: Warehouse, night: Publication, against: str) -> str:
    """Return the model to compare with."""
    if against != PREVIOUS:
        return against
    versions = [one.model_version for one in warehouse.promotions("champion", night.domain_id)]
    place = versions.index(night.model_version) if night.model_version in versions else -1
    earlier = (version for version in versions[place + 1 :] if version != night.model_version)
    if version := next(earlier, None):
        return version
    raise UsageError(f"no other model was champion before {night.model_version}")


def _compared(workspace: Workspace, quality: NightQuality, rows: pa.Table, version: str) -> NightQuality:
    """Return the figures with the gain over another model on the same rows."""
    import numpy as np

    from mmlora.metrics.bootstrap import compare

    other = with_scores(rows, _scored_by(workspace, quality, rows, version))
    both = rows.append_column("other", other[SCORE]) if other.num_rows == rows.num_rows else None
    if both is None:
        raise UsageError(f"{version} scores {other.num_rows:,} of its {rows.num_rows:,} rows only")
    label = both[LABEL].to_numpy()
    gain = compare(
        label, both[SCORE].to_numpy(), both["other"].to_numpy(), np.zeros(len(label), np.int64)
    ).auc
    return replace(
        quality, against=version, auc_gain=gain.value, auc_gain_low=gain.low, auc_gain_high=gain.high
    )


def _scored_by(workspace: Workspace, quality: NightQuality, rows: pa.Table, version: str) -> pa.Table:
    """Score a night's pairs by another model, as a rehearsal that changes nothing in the warehouse."""
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="mmlora-evaluate-") as folder:
        pairs = Path(folder) / "pairs.parquet"
        pq.write_table(rows.group_by([USER_ID, ITEM_ID]).aggregate([]), pairs)
        load = score(
            quality.score_date,
            str(quality.domain_id),
            pairs=str(pairs),
            top_k=0,
            model_version=version,
            allow_stale=True,
            override=RULE_NAMES,
            reason="evaluation of a published night",
            dry_run=True,
            workspace=workspace,
        )
        staged = workspace.staging_folder(load)
        try:
            return ds.dataset(sorted(staged.glob(_PARTS))).to_table(columns=[USER_ID, ITEM_ID, SCORE])
        finally:
            shutil.rmtree(staged, ignore_errors=True)
