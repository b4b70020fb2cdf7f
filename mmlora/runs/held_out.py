"""Compare a challenger with the champions on rows that none of them has seen.

Most models were finally trained on all rows (``refit``), test rows included. Such a model is compared as it
was judged, before that: challenger and champion are then alike, each without its newest rows. Of all rows
known now, those count that are later than anything that both have learned from, domain by domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from mmlora.errors import ContractError, MmloraError
from mmlora.runs.built_features import ensure_features, ensure_profiles
from mmlora.runs.champions import champions_of
from mmlora.runs.contract import check_contract, feature_group
from mmlora.schema import DOMAIN_ID, EVENT_TIMESTAMP, LABEL, USER_ID, Id
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from mmlora.judging.promotion import Evidence, HeldOut
    from mmlora.registry.bundle import Bundle

    Floats = npt.NDArray[np.float64]

_CHUNK_ROWS = 50_000
_MOST_ROWS = 100_000
"""Rows compared at most; of more, a seeded sample is."""


def compare_with_champions(workspace: Workspace, version: str, known_as_of: datetime) -> Evidence | None:
    """Compare a model version with each domain's champion.

    Args:
        workspace: the workspace.
        version: the challenger.
        known_as_of: only rows known by then, and of before then, count.

    Returns:
        The comparison; None if there is no other champion to compare with.

    Raises:
        UsageError: the version does not exist.
        ContractError: the version's features are no longer in the feature store, or its files are damaged. A
            champion of which this is true isn't compared, and the comparison says so.
    """
    from mmlora.judging.promotion import weigh

    settings, challenger = workspace.settings.promotion, workspace.bundles.load(version).judged
    champions = champions_of(workspace)
    if set(champions.values()) <= {version}:
        return None
    judged, excluded = _judged_champions(workspace, champions)
    excluded |= _broken(workspace, known_as_of)
    table, rows = _unseen(workspace, challenger, champions, judged, excluded, known_as_of)
    scores = None
    if rows.enough(settings.min_rows):
        _ensure_read(workspace, table, [challenger, *judged.values()])
        check_contract(workspace, challenger)
        ours = _probabilities(workspace, challenger, table, rows)
        known = {challenger.manifest.model_version: ours}
        theirs, unreadable = _champions_scores(workspace, table, rows, judged, known)
        rows = replace(rows, excluded={**excluded, **unreadable})
        scores = (ours, theirs) if rows.enough(settings.min_rows) else None
    return weigh(version, rows, scores, margin=settings.margin, min_rows=settings.min_rows)


def _judged_champions(
    workspace: Workspace, champions: Mapping[Id, str]
) -> tuple[dict[str, Bundle], dict[str, str]]:
    """Return the champions as they were judged, by version, and why those of domains are not there."""
    judged: dict[str, Bundle] = {}
    faults: dict[str, str] = {}
    for version in dict.fromkeys(champions.values()):
        if not workspace.bundles.exists(version):
            faults[version] = f"champion {version} is no longer stored"
            continue
        try:
            judged[version] = workspace.bundles.load(version).judged
        except (OSError, MmloraError) as error:
            faults[version] = _incomparable(version, error)
    return judged, {str(domain): faults[v] for domain, v in champions.items() if v in faults}


def _incomparable(champion: str, error: Exception) -> str:
    return f"champion {champion} can't be compared: {error}"


def _broken(workspace: Workspace, known_as_of: datetime) -> dict[str, str]:
    """Return the domains whose stored verdict is broken, so that their rows are not to be trusted."""
    day = known_as_of.date()
    with workspace.open_warehouse() as warehouse:
        verdicts = warehouse.verdicts(day)
    return {str(v.domain_id): f"broken as of {day}" for v in verdicts if v.verdict == "broken"}


def _unseen(
    workspace: Workspace,
    challenger: Bundle,
    champions: Mapping[Id, str],
    judged: Mapping[str, Bundle],
    excluded: Mapping[str, str],
    known_as_of: datetime,
) -> tuple[pa.Table, HeldOut]:
    """Return the rows that none of the models has seen, in order of time, and what is compared on them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.data.current import read_current
    from mmlora.judging.promotion import HeldOut
    from mmlora.training.rows import sample

    names = list(champions)
    seen = [
        max(b.manifest.last_seen(domain) for b in (challenger, judged.get(champion, challenger)))
        for domain, champion in champions.items()
    ]
    matured = known_as_of - timedelta(hours=workspace.settings.training.label_maturity_hours)
    table = read_current(workspace.offline, known_as_of=known_as_of, before=matured, since=min(seen))
    domains = pa.array(names, workspace.ids.arrow("domain"))
    place = pc.index_in(table[DOMAIN_ID], value_set=domains)
    limit = pa.array(seen, table[EVENT_TIMESTAMP].type).take(place.combine_chunks())
    table = table.filter(pc.fill_null(pc.greater(table[EVENT_TIMESTAMP], limit), False))
    chosen = sample(np.arange(table.num_rows), _MOST_ROWS, workspace.settings.training.seed)
    table = table.take(pa.array(chosen)).combine_chunks()
    times = pc.min_max(table[EVENT_TIMESTAMP]).as_py()
    return table, HeldOut(
        names=[str(name) for name in names],
        champions={str(domain): version for domain, version in champions.items()},
        excluded=excluded,
        domain=pc.index_in(table[DOMAIN_ID], value_set=domains).to_numpy(),
        user=table[USER_ID].combine_chunks().dictionary_encode().indices.to_numpy(),
        label=table[LABEL].to_numpy(),
        first=times["min"],
        last=times["max"],
    )


def _ensure_read(workspace: Workspace, table: pa.Table, bundles: list[Bundle]) -> None:
    """Compute the features that the models read, up to the rows' last day."""
    import pyarrow.compute as pc

    if any(feature_group(bundle) == "all" for bundle in bundles):
        last: datetime = pc.max(table[EVENT_TIMESTAMP]).as_py()
        ensure_features(workspace, last.date())
    else:
        ensure_profiles(workspace)


def _champions_scores(
    workspace: Workspace,
    table: pa.Table,
    rows: HeldOut,
    judged: Mapping[str, Bundle],
    known: Mapping[str, Floats],
) -> tuple[Floats, dict[str, str]]:
    """Return the click probabilities of each row's champion, ``[N]``, and by domain why it has none.

    ``known`` are probabilities by version: the challenger's, because it may be a champion itself.
    """
    theirs = np.zeros(len(table))
    faults: dict[str, str] = {}
    for champion, bundle in judged.items():
        names = [n for n in rows.names if rows.champions[n] == champion and n not in rows.excluded]
        if not names:
            continue
        try:
            check_contract(workspace, bundle)
            scores = known.get(bundle.manifest.model_version)
            if scores is None:
                scores = _probabilities(workspace, bundle, table, rows)
        except ContractError as error:
            faults |= dict.fromkeys(names, _incomparable(champion, error))
            continue
        own = np.isin(rows.domain, [rows.names.index(name) for name in names])
        theirs[own] = scores[own]
    return theirs, faults


def _probabilities(workspace: Workspace, bundle: Bundle, table: pa.Table, rows: HeldOut) -> Floats:
    """Score rows, each with its features as of its own time, and by its domain's mixture if it has one."""
    import torch

    from mmlora.training.rows import blocks

    encoder, whole = bundle.encoder(), (bundle.model(), bundle.calibration)
    mixtures = {
        rows.names.index(str(mixture.domain)): (
            bundle.model_of(mixture.domain),
            bundle.calibration_of(mixture.domain),
        )
        for mixture in bundle.manifest.mixtures
        if str(mixture.domain) in rows.names
    }
    scores, start = np.empty(len(table)), 0
    for features in workspace.feature_repo.stream(table, bundle.contract, rows=_CHUNK_ROWS):
        encoded = encoder.encode(features)
        domain = rows.domain[start : start + features.num_rows]
        alike = np.where(np.isin(domain, list(mixtures)), domain, -1)
        for number in np.unique(alike).tolist():
            model, calibration = mixtures.get(number, whole)
            for _, block in blocks(np.flatnonzero(alike == number)):
                batch = encoder.assemble([(encoded, block)])
                with torch.inference_mode():
                    values = calibration.of_sample.apply(model(batch).double(), batch.domain).numpy()
                scores[start + block] = values
        start += features.num_rows
    return scores
