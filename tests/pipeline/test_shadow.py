"""Shadow loads: scored beside the published ones, compared with them, seen by nobody else."""

from __future__ import annotations

import os
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmlora.errors import UsageError
from mmlora.metrics import auc
from mmlora.pipeline.compare import compare, compare_shadows
from mmlora.pipeline.erase import erase
from mmlora.pipeline.gc import gc
from mmlora.pipeline.publish import publish
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.shadow import score_shadow
from mmlora.pipeline.status import status
from mmlora.pipeline.unpublish import restore
from mmlora.pipeline.verify import verify
from mmlora.runs.champions import CHALLENGER
from mmlora.workspace import open_workspace
from tests.conftest import MadeUp, published
from tests.pipeline.sequence_start import store_another
from tests.pipeline.test_promotion import backwards

ON = date(2001, 4, 9)


@pytest.fixture
def shadow(trained: tuple[Path, str], trained_workspace: Path) -> str:
    """A shadow load of news beside a published one, by a model that ranks the other way round.

    Lists of 30 of 40 items, so that pairs that were shown are in both.
    """
    score_and_publish(ON, domain="news", top_k=30)
    (load,) = score_shadow(ON, backwards(trained[1]), domain="news", top_k=30).loads
    assert (load.state, load.reason) == ("shadow", None)
    return str(load.load_id)


def _loads() -> list[Any]:
    with open_workspace().open_warehouse() as warehouse:
        return [*warehouse.loads(), *warehouse.nights(), *warehouse.publications()]


def _staged(load_id: str) -> list[dict[str, Any]]:
    folder = open_workspace().staging_folder(load_id)
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_no_reader_and_no_night_knows_of_a_shadow(trained: tuple[Path, str], trained_workspace: Path) -> None:
    score_and_publish(ON, domain="news")
    before, rows = _loads(), published("news")
    with pytest.raises(UsageError, match="there is no challenger"):
        score_shadow(ON, "challenger", domain="news")
    other = store_another(trained[1])
    with open_workspace().open_warehouse() as warehouse:
        warehouse.promote(None, other, alias=CHALLENGER, who="me", why="a test")
    (load,) = score_shadow(ON, "challenger", domain="news").loads
    assert (load.state, load.model_version, load.rows) == ("shadow", other, len(rows))
    assert _loads() == before and published("news") == rows
    for refused in (publish, restore):
        with pytest.raises(UsageError, match="is a shadow load, which is never published"):
            refused(str(load.load_id))
    score_and_publish(ON, domain="news")
    assert [each.load_id for each in status().shadows] == [load.load_id], "a rerun leaves it alone"


def test_a_shadow_that_fails_makes_no_night_a_failed_one(
    trained: tuple[Path, str], trained_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_CANDIDATES__USERS", "/nowhere.parquet")
    (load,) = score_shadow(ON, trained[1], domain="news").loads
    assert load.state == "failed" and "/nowhere.parquet" in str(load.reason)
    assert _loads() == [] and status().shadows == ()
    assert list((trained_workspace / "staging").glob("*")) == []


def test_a_shadow_is_compared_with_what_readers_see(shadow: str, made_up: MadeUp) -> None:
    (found,) = compare_shadows(ON, domain="news")
    assert (found.before.state, found.after.state, found.after.load_id) == ("published", "shadow", shadow)
    assert compare(load_id=shadow) == found
    before, after = published("news"), _staged(shadow)
    lists = [
        {user: {r["item_id"] for r in rows if r["user_id"] == user and r["position"] <= 10} for user in users}
        for users in [{row["user_id"] for row in before}]
        for rows in (before, after)
    ]
    shared = [len(lists[0][user] & lists[1][user]) / len(lists[0][user]) for user in lists[0]]
    assert found.rows.top_10_overlap == pytest.approx(np.mean(shared)) and np.mean(shared) < 0.9
    for mover in found.movers:
        counts = [sum(mover.item_id in items for items in of.values()) for of in lists]
        assert counts == [mover.lists_before, mover.lists_after] and counts[0] != counts[1]

    table = pq.read_table(made_up.interactions).to_pylist()
    shown = [r for r in table if r["domain_id"] == "news" and r["event_timestamp"].date() == ON]
    scores = [{(r["user_id"], r["item_id"]): r["score"] for r in rows} for rows in (before, after)]
    both = [r for r in shown if all((r["user_id"], r["item_id"]) in each for each in scores)]
    labels = found.labels
    assert labels is not None
    assert (labels.impressions, labels.clicks) == (len(shown), sum(r["label"] for r in shown))
    assert labels.scored == len(both)
    tops = [sum(r["label"] for r in shown if r["item_id"] in of.get(r["user_id"], ())) for of in lists]
    assert [labels.clicks_in_top_10_before, labels.clicks_in_top_10_after] == tops
    label = np.array([r["label"] for r in both])
    assert set(label) == {0, 1}, "the aucs exist"
    values = [np.array([each[r["user_id"], r["item_id"]] for r in both]) for each in scores]
    assert [labels.auc_before, labels.auc_after] == [auc(label, value) for value in values]


def test_gc_frees_old_shadows_and_verify_follows_the_others(shadow: str) -> None:
    assert [row.load_id for row in verify().checked if row.kind == "shadow load"] == [shadow]
    assert verify().faults == ()
    gc()
    assert status().shadows[0].load_id == shadow, "it is new"
    folder = open_workspace().staging_folder(shadow)
    (part,) = folder.glob("part-*.parquet")
    rows = part.read_bytes()
    part.write_bytes(rows[:-100])
    (fault,) = verify().faults
    assert fault.kind == "shadow load" and "--shadow " in fault.mend
    part.write_bytes(rows)
    _age(shadow, days=31)
    gc()
    assert status().shadows == () and not folder.exists()
    with pytest.raises(UsageError, match="no shadow load"):
        compare(load_id=shadow)
    with pytest.raises(UsageError, match="mmlora score --date 2001-04-09 --shadow challenger"):
        compare_shadows(ON)


def test_erased_users_are_in_no_shadow(shadow: str) -> None:
    erase([_staged(shadow)[0]["user_id"]], reason="a test")
    assert status().shadows == () and not open_workspace().staging_folder(shadow).exists()


def _age(load_id: str, days: float) -> None:
    """Have a shadow load be older."""
    workspace = open_workspace()
    with workspace.open_warehouse() as warehouse, warehouse.database.writing() as connection:
        table = warehouse.tables.shadow_loads
        then = connection.execute(table.select()).one().scored_at - timedelta(days=days)
        connection.execute(table.update().values(scored_at=then))
    old = time.time() - days * 86_400
    folder = workspace.staging_folder(load_id)
    for path in (*folder.iterdir(), folder):
        os.utime(path, (old, old))
