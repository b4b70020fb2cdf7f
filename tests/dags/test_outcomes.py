"""What tasks make of the outcome of a command."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mmlora.errors import CheckError, TransientError
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.outcomes import LoadOutcome
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.workspace import open_workspace

ON = date(2026, 5, 1)


@pytest.fixture
def outcomes(dag_bag):
    """The module, imported after Airflow has its home."""
    from mmlora.airflow_plugin import outcomes

    return outcomes


@pytest.fixture
def trying(outcomes, monkeypatch):
    """Run a helper as if inside the n-th try of a task; scoring again has this outcome."""

    def enter(number, again=None):
        scored = []

        def score_and_publish(on, domains, **options):
            scored.append((on, domains, options))
            return SimpleNamespace(loads=[again])

        monkeypatch.setattr(outcomes, "run_date", lambda: ON)
        monkeypatch.setattr(
            outcomes, "get_current_context", lambda: {"ti": SimpleNamespace(try_number=number)}
        )
        monkeypatch.setattr(
            outcomes, "module", lambda name: SimpleNamespace(score_and_publish=score_and_publish)
        )
        return scored

    return enter


def made(state, **facts):
    return LoadOutcome("news", ON, state, load_id="news-1", **facts)


def test_the_first_try_takes_what_the_batch_did(outcomes, trying):
    scored = trying(1)
    assert outcomes.settle(made("published").to_json(), {}) == ("news", "news-1")
    with pytest.raises(TransientError, match="database gone"):
        outcomes.settle(made("failed", exit_code=75, reason="database gone").to_json(), {})
    with pytest.raises(CheckError, match=r"half the rows.*mmlora score --date 2026-05-01 --domain news"):
        outcomes.settle(made("rejected", exit_code=1, reason="half the rows").to_json(), {})
    assert scored == []


def test_a_cleared_or_retried_task_scores_the_domain_alone_again(outcomes, trying):
    scored = trying(2, again=made("published"))
    failed = made("failed", exit_code=75, reason="database gone").to_json()
    assert outcomes.settle(failed, {"top_k": 5}) == ("news", "news-1")
    assert scored == [(ON, ["news"], {"top_k": 5})]


def test_a_cleared_task_scores_no_domain_again_that_its_batch_has_published(outcomes, trying):
    scored = trying(2)
    assert outcomes.settle(made("published").to_json(), {}) == ("news", "news-1")
    assert scored == []


def test_a_backfill_fails_with_its_failed_nights(outcomes):
    def outcome(*loads):
        return SimpleNamespace(plan=(), loads=loads, to_json=lambda: {"plan": []})

    assert outcomes.report_backfill(outcome(made("published"))) == {"plan": []}
    with pytest.raises(CheckError, match="news, 2026-05-01: no rows"):
        outcomes.report_backfill(outcome(made("published"), made("rejected", reason="no rows", exit_code=1)))
    with pytest.raises(TransientError):
        outcomes.report_backfill(outcome(made("failed", reason="gone", exit_code=75)))


def test_a_domain_whose_experts_could_not_be_chosen_fails_the_task(outcomes):
    def shared(domain, **failure):
        facts = {"policy": "shared", "reason": "they help", "exit_code": 0, **failure}
        return SimpleNamespace(domain_id=domain, **facts)

    good = shared("news")
    assert outcomes.shared([good]) == {"news": "shared"}
    with pytest.raises(CheckError, match="sport: its model is damaged"):
        outcomes.shared([good, shared("sport", reason="its model is damaged", exit_code=1)])
    with pytest.raises(TransientError, match="sport: database gone"):
        outcomes.shared([good, shared("sport", reason="database gone", exit_code=75)])


def test_nothing_published_is_nothing_to_evaluate(outcomes, trained_workspace):
    assert outcomes.evaluate_published() == {"nights": 0, "unlabelled": 0}
    assert outcomes.evaluate_published(ON) == {"nights": 0, "unlabelled": 0}


def test_nights_are_restated_for_late_rows_and_not_for_a_new_champion(
    outcomes, monkeypatch, trained, trained_workspace, made_up, tmp_path
):
    last = made_up.last_day
    for night in (last - timedelta(days=1), last):
        score_and_publish(night, domain="news")
    workspace = open_workspace()
    manifest = workspace.bundles.load(trained[1]).manifest
    promote(workspace.bundles.save(replace(manifest, block_rows=512)))
    rows = pq.read_table(made_up.interactions)
    late = rows.filter(pc.equal(rows["domain_id"], "rare")).slice(0, 1)
    moment = pa.array([last - timedelta(days=1)], pa.date32()).cast(rows.schema.field("event_timestamp").type)
    index = rows.schema.get_field_index("event_timestamp")
    pq.write_table(late.set_column(index, "event_timestamp", moment), tmp_path / "late.parquet")
    monkeypatch.setattr(outcomes, "run_date", lambda: last)
    assert outcomes.restate_late(late_days=3)["plan"] == []
    import_tables(tmp_path / "late.parquet")
    assert outcomes.restate_late() == {"plan": []}, "it is asked for by the number of days"
    restated = outcomes.restate_late(late_days=3)
    (load,) = restated["loads"]
    assert (load["score_date"], load["model_version"]) == (last.isoformat(), trained[1])


def test_figures_beyond_the_limits_and_faults_fail_with_what_to_do(outcomes):
    good = SimpleNamespace(faults=(), nights=(1, 2), unlabelled=3)
    assert outcomes.evaluated(good) == {"nights": 2, "unlabelled": 3}
    with pytest.raises(CheckError, match="in news"):
        outcomes.evaluated(SimpleNamespace(faults=("auc 0.4 in news",)))
    fault = SimpleNamespace(fault="2 rows were deleted", mend="mmlora score --date 2026-05-01")
    with pytest.raises(CheckError, match="2 rows were deleted; to repair it: mmlora score"):
        outcomes.verified(SimpleNamespace(faults=(fault,)))


def test_each_domain_has_an_asset_of_its_own(outcomes, trying):
    from airflow.sdk.execution_time.context import OutletEventAccessors

    trying(1)
    events = OutletEventAccessors()
    outcomes.announce_loads(events, {"news": "news-1", "sport": "sport-1"})
    assert events[outcomes.SCORES_PUBLISHED].extra["loads"] == {"news": "news-1", "sport": "sport-1"}
    emitted = events[outcomes.DOMAIN_SCORES].asset_alias_events
    assert [(event.dest_asset_key.name, event.extra["load"]) for event in emitted] == [
        ("mmlora_scores_news", "news-1"),
        ("mmlora_scores_sport", "sport-1"),
    ]
