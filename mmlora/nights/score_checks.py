"""The checks of a load's scores by what is known of the domain: the last published night, and what was shown.

They look at samples of users and of interactions, so their cost doesn't grow with the load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from mmlora.check_rules import AuditCheck
from mmlora.names import Severity
from mmlora.nights.load_size import NO_NIGHT, night_before
from mmlora.schema import ITEM_ID, LABEL, POSITION, SCORE, USER_ID, midnight
from mmlora.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

    from mmlora.candidates.pairs import Candidates
    from mmlora.nights.rehearsal import Rehearsal
    from mmlora.registry.bundle import Bundle
    from mmlora.scoring.work import Work
    from mmlora.warehouse.loads import Load
    from mmlora.warehouse.warehouse import Warehouse

LISTS = 200
"""Users whose lists are compared."""
SHOWN_ROWS, SHOWN_DAYS = 2000, 7
"""Interactions that the model is tried on: the newest ones, of these days at most."""
_LISTED = (USER_ID, ITEM_ID, SCORE, POSITION)


def check_scores(
    workspace: Workspace,
    warehouse: Warehouse | Rehearsal,
    load: Load,
    bundle: Bundle,
    work: Work,
    candidates: Candidates,
    users: pa.Table,
    known_as_of: datetime | None,
) -> tuple[AuditCheck, ...]:
    """Check a staged load's scores.

    Args:
        workspace: the workspace.
        warehouse: the warehouse.
        load: the load.
        bundle: its model.
        work: model, items and domain.
        candidates: its candidates.
        users: the users' features, in the candidates' order.
        known_as_of: the second cutoff of the night.
    """
    of_domains = _tested(bundle)
    tested = of_domains.get(str(load.domain_id))
    seen = workspace.check_rules["test_auc"].measured(
        None if tested is None else least_test_auc(of_domains, str(load.domain_id)),
        "no auc of a test is known" if tested is None else f"the model's test had an auc of {tested.auc:.4f}",
    )
    lists = _check_lists(workspace, warehouse, load, candidates)
    shown = _shown(workspace, load, candidates, known_as_of)
    return (seen, *lists, *_check_shown(workspace, work, candidates, users, shown, tested))


@dataclass(frozen=True)
class _Auc:
    """An auc, and the rows with and without a click that it is of."""

    auc: float
    clicks: int
    others: int

    @property
    def error(self) -> float:
        """The standard error, with half a click ranked wrongly: an auc of 1 on a few clicks says little."""
        auc = (self.auc * self.clicks + 0.5) / (self.clicks + 1)
        return _auc_error(auc, self.clicks, self.others)


def least_test_auc(of_domains: Mapping[str, _Auc], domain: str) -> float:
    """Return the least auc of a domain's test that chance explains, by its own rows or by those of all."""
    tested = of_domains[domain]
    return max(_least([tested]), min(tested.auc, _least([*of_domains.values()])))


def _least(aucs: Sequence[_Auc]) -> float:
    """Return the mean auc, weighted by clicks, less three standard errors."""
    weights = np.array([auc.clicks for auc in aucs]) / sum(auc.clicks for auc in aucs)
    error = math.hypot(*(weight * auc.error for weight, auc in zip(weights, aucs, strict=True)))
    return float(weights @ [auc.auc for auc in aucs]) - 3 * error


def _tested(bundle: Bundle) -> dict[str, _Auc]:
    """Return the auc of a model's test in each domain that had one."""
    phases = list(bundle.manifest.metrics.values())
    by_domain = phases[-1].get("by_domain", {}) if phases else {}
    return {
        domain: _Auc(float(f["auc"]), int(f["positives"]), int(f["rows"]) - int(f["positives"]))
        for domain, f in by_domain.items()
        if f.get("auc") is not None
    }


def _check_lists(
    workspace: Workspace, warehouse: Warehouse | Rehearsal, load: Load, candidates: Candidates
) -> tuple[AuditCheck, ...]:
    """Compare some users' lists with those of the domain's last published night."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    from mmlora.checks.lists import compare_lists, spread
    from mmlora.scoring.staging import part_files

    rules = workspace.check_rules
    count = len(candidates.users)
    ids = candidates.users.take(pa.array(np.unique(np.linspace(0, count - 1, LISTS).astype(np.int64))))
    staged = ds.dataset(part_files(workspace.staging_folder(load.load_id)), format="parquet")
    after = staged.to_table(columns=list(_LISTED), filter=pc.field(USER_ID).isin(ids))
    constant = rules["near_constant"].measured(spread(after), f"scores of {len(ids):,} users' lists")
    last = night_before(warehouse, load)
    if last is None:
        return constant, *(rules[name].outcome(None, NO_NIGHT) for name in ("score_shift", "rank_overlap"))
    before = warehouse.read_publications([last], users=ids.to_pylist()).read_all().select(_LISTED)
    change = compare_lists(before, after)
    # Another model is promoted in order to change scores.
    other = last.model_version != load.model_version
    what = f"{change.users:,} users' lists beside those of {last.score_date}"
    what += f", scored by {last.model_version}" if other else ""
    means = f"{what}: mean score {change.mean_after:.4g} after {change.mean_before:.4g}"
    severity: Severity | None = "warn" if other else None
    return (
        constant,
        rules["score_shift"].measured(change.shift, means, severity=severity),
        rules["rank_overlap"].measured(change.overlap, what, severity=severity),
    )


def _shown(
    workspace: Workspace, load: Load, candidates: Candidates, known_as_of: datetime | None
) -> pa.Table:
    """Return the newest interactions whose user and item are candidates: their rows there, and the label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.data.recent import recent_rows

    moment = midnight(load.score_date)
    waits = math.ceil(workspace.settings.training.label_maturity_hours / 24)  # whole days are read
    rows = recent_rows(
        workspace.offline,
        domain=load.domain_id,
        before=moment - timedelta(days=waits),
        known_as_of=known_as_of or moment,
        rows=SHOWN_ROWS,
        days=SHOWN_DAYS,
    )
    ids = ((USER_ID, candidates.users), (ITEM_ID, candidates.items))
    columns = {name: pc.index_in(rows[name].cast(known.type), value_set=known) for name, known in ids}
    return pa.table({**columns, LABEL: rows[LABEL]}).drop_null()


def _check_shown(
    workspace: Workspace,
    work: Work,
    candidates: Candidates,
    users: pa.Table,
    shown: pa.Table,
    tested: _Auc | None,
) -> tuple[AuditCheck, ...]:
    """Try the model on pairs that were shown lately: their clicks, and how it ranks them."""
    from mmlora.metrics.ranking import auc

    mean, rank = (workspace.check_rules[name] for name in ("mean_score", "recent_auc"))
    if not shown.num_rows:
        nothing = "nothing was shown lately"
        return mean.outcome(None, nothing), rank.outcome(None, nothing)
    score = _score_pairs(work, candidates, users, shown, workspace.settings.training.threads)
    label = shown[LABEL].to_numpy() > 0
    clicks, total = int(label.sum()), float(score.sum(dtype=np.float64))
    what = f"{len(label):,} pairs shown lately"
    reached = auc(label, score)
    if reached is None or tested is None:
        drop, why = None, f"{what}: no auc to compare"
    else:
        # That of a ranking by chance: at an auc near 0 or 1 the estimate of few rows is next to 0.
        recent = _auc_error(0.5, clicks, len(label) - clicks)
        error = math.hypot(recent, _auc_error(0.5, tested.clicks, tested.others))
        drop = tested.auc - reached - 3 * error
        why = f"{what}: auc {reached:.4f}, in the test {tested.auc:.4f}"
    return (
        mean.measured(_times(total, clicks), f"{what}: scores sum to {total:.4g}, with {clicks:,} clicks"),
        rank.measured(drop, why),
    )


def _score_pairs(
    work: Work, candidates: Candidates, users: pa.Table, pairs: pa.Table, threads: int | None
) -> np.ndarray:
    """Return the score of each pair, given as rows among the candidates' users and items, ``[N]``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from mmlora.candidates.pairs import Candidates, PairIndex
    from mmlora.scoring.score import LocalEngine

    (user_rows, user), (item_rows, item) = (
        np.unique(pairs[name].to_numpy(), return_inverse=True) for name in (USER_ID, ITEM_ID)
    )
    keys, place = np.unique(user * len(item_rows) + item, return_inverse=True)
    index = PairIndex.from_rows(*np.divmod(keys, len(item_rows)), len(user_rows))
    user_ids, item_ids = (
        candidates.users.take(pa.array(user_rows)),
        candidates.items.take(pa.array(item_rows)),
    )
    some = replace(
        work,
        items=work.items.take(pa.array(item_rows)),
        calibration=work.calibration.of_sample,  # the labels are those of imported rows
        top_k=0,
        precision="float32",
    )
    tables = LocalEngine(threads=threads, device="cpu").tables(
        some,
        Candidates(user_ids, item_ids, index, listed=True),
        users.take(pa.array(user_rows)),
        lambda pairs: None,
        lambda by: None,
    )
    rows = pa.concat_tables(tables)
    found = (
        pc.index_in(rows[name], value_set=ids).to_numpy()
        for name, ids in ((USER_ID, user_ids), (ITEM_ID, item_ids))
    )
    user_row, item_row = (each.astype(np.int64) for each in found)
    scores = np.empty(len(keys), np.float32)
    scores[np.searchsorted(keys, user_row * len(item_rows) + item_row)] = rows[SCORE].to_numpy()
    return scores[place]


def _times(total: float, clicks: int) -> float:
    """Return how many times too high, or too low, a sum of scores is, beyond what chance explains."""
    error = 3 * math.sqrt(clicks + 2.25)
    low, high = max(clicks + 4.5 - error, 1e-9), clicks + 4.5 + error
    return max(1.0, total / high, low / max(total, 1e-9))


def _auc_error(auc: float, positives: int, negatives: int) -> float:
    """Return the standard error of an auc (Hanley and McNeil 1982)."""
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc)
    variance += (positives - 1) * (first - auc**2) + (negatives - 1) * (second - auc**2)
    return math.sqrt(max(variance, 0.0) / (positives * negatives))
