"""Which model a warm start begins with, such that no validation or test row was ever learned from.

A registered model was finally trained on all rows of its day, among them rows that are held out now. So a
model may only be begun with if (nearly) all rows that are held out now are later than its newest rows, domain
by domain; a model as it was judged, before that final training, counts as one of its own. The few held-out
rows that it may have learned from, of a domain that is cut by its own time, become training rows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmlora.errors import MmloraError, UsageError
from mmlora.records import Record
from mmlora.runs.champions import CHAMPION
from mmlora.runs.state import Run
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, FeatureContract
from mmlora.settings import TrainingSettings
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.registry.bundle import Bundle

logger = logging.getLogger(__name__)

COLD, WARM = "cold", "warm"
_SHAPE = ("backbone", "crosses", "embedding_dim", "hidden_units")
_MOST_SEEN = 0.1
"""A model is not begun with if it may have learned from more of the validation or of the test rows."""


@dataclass(frozen=True)
class Start(Record):
    """What a run begins with.

    Attributes:
        version: the model version.
        judged: whether with its weights of before its final training on all rows.
        moves_rows: whether it may have learned from rows that would be held out, so that they are trained on.
    """

    version: str
    judged: bool
    moves_rows: bool = False

    def bundle(self, workspace: Workspace) -> Bundle:
        """Open the model."""
        bundle = workspace.bundles.load(self.version)
        return bundle.judged if self.judged else bundle


def begun_with(workspace: Workspace, run: Run) -> Bundle | None:
    """Return the model that a run begins with; None for a cold start."""
    stored = run.result("start")
    return None if stored is None else Start.from_json(stored).bundle(workspace)


def choose_start(
    workspace: Workspace,
    as_of: date,
    settings: TrainingSettings,
    contract: FeatureContract,
    rows: pa.Table,
    split: npt.NDArray[np.int8],
) -> Start | None:
    """Return what to begin with: the champion or else the newest model that can be, or the version asked for.

    Args:
        workspace: the workspace.
        as_of: the run's date.
        settings: the run's settings, whose ``start`` is ``warm`` or a version.
        contract: the run's features.
        rows: the run's interactions.
        split: their parts of the split.

    Returns:
        None, with a warning that says why, if ``warm`` finds no model.

    Raises:
        UsageError: the version that was asked for doesn't exist or can't be begun with.
    """
    refused: dict[str, str] = {}
    asked = settings.start if settings.start != WARM else None
    for start in _candidates(workspace, as_of, asked):
        try:
            bundle = start.bundle(workspace)
        except (OSError, MmloraError) as error:
            refused[start.version] = str(error)
            continue
        seen = split[seen_by(bundle, rows)]  # the parts of the split that it has seen rows of
        fault = _difference(bundle, settings, contract) or _overlap(seen, split)
        if fault is None:
            logger.info("warm start: begins with %s%s", start.version, ", as judged" if start.judged else "")
            return replace(start, moves_rows=bool(seen.any()))
        refused[start.version] = fault
    if asked is not None:
        raise UsageError(f"start {asked}: {refused[asked]}; use another version, warm or cold")
    reasons = "; ".join(f"{version}: {fault}" for version, fault in list(refused.items())[:3])
    logger.warning(
        "warm start: no model can be begun with, so this is a cold start (%s)", reasons or "there is none yet"
    )
    return None


def seen_by(bundle: Bundle, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return the rows that a model may have learned from, ``[N]``: none are later than its newest ones."""
    import pyarrow as pa
    import pyarrow.compute as pc

    domains = pc.unique(rows[DOMAIN_ID])
    last = [bundle.manifest.last_seen(domain) for domain in domains.to_pylist()]
    place = pc.index_in(rows[DOMAIN_ID], value_set=domains).combine_chunks()
    limit = pa.array(last, rows[EVENT_TIMESTAMP].type).take(place)
    return np.asarray(pc.less_equal(rows[EVENT_TIMESTAMP].combine_chunks(), limit))


def _candidates(workspace: Workspace, as_of: date, asked: str | None) -> Iterator[Start]:
    """Yield the models by preference, each as it is registered, then as it was judged."""
    if asked is not None:
        versions = [asked]
    else:
        with workspace.open_warehouse() as warehouse:
            champion = warehouse.current(CHAMPION, None)
        newest = [version for version in reversed(workspace.bundles.versions()) if version != champion]
        versions = [champion, *newest] if champion and workspace.bundles.exists(champion) else newest
    for version in versions:
        manifest = workspace.bundles.load(version).manifest
        if asked is not None or manifest.as_of <= as_of:
            yield Start(version, judged=False)
            if manifest.judged is not None:
                yield Start(version, judged=True)


def _difference(bundle: Bundle, settings: TrainingSettings, contract: FeatureContract) -> str | None:
    """Return in what a model differs from the run's, so that its weights have no place there."""
    spec = bundle.model_spec()
    other = [
        f"{name} {getattr(spec, name)} instead of {getattr(settings, name)}"
        for name in _SHAPE
        if getattr(spec, name) != getattr(settings, name)
    ]
    if other:
        return f"it has {', '.join(other)}"
    return "it has other features" if _inputs(bundle.contract) != _inputs(contract) else None


def _overlap(seen: npt.NDArray[np.int8], split: npt.NDArray[np.int8]) -> str | None:
    """Return whether a model may have learned from too many of the rows that are held out now."""
    for part, name in ((1, "validation"), (2, "test")):
        share = (seen == part).sum() / max(int((split == part).sum()), 1)
        if share > _MOST_SEEN:
            return f"it may have learned from {share:.0%} of the {name} rows"
    return None


def _inputs(contract: FeatureContract) -> list[tuple[Any, ...]]:
    """Return what the place of a field's weights depends on, besides its vocabulary."""
    return [(field.name, field.kind, field.side, field.partner) for field in contract.fields]
