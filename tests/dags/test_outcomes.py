"""What tasks make of the outcome of a command."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest

from mmlora.errors import CheckError, TransientError
from mmlora.pipeline.outcomes import LoadOutcome

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


def test_a_backfill_fails_with_its_failed_nights(outcomes):
    def outcome(*loads):
        return SimpleNamespace(plan=(), loads=loads, to_json=lambda: {"plan": []})

    assert outcomes.report_backfill(outcome(made("published"))) == {"plan": []}
    with pytest.raises(CheckError, match="news, 2026-05-01: no rows"):
        outcomes.report_backfill(outcome(made("published"), made("rejected", reason="no rows", exit_code=1)))
    with pytest.raises(TransientError):
        outcomes.report_backfill(outcome(made("failed", reason="gone", exit_code=75)))


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
