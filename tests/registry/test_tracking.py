from __future__ import annotations

import logging
import sqlite3

import pytest

from mmlora.errors import TransientError
from mmlora.registry.tracking import Point, Tracking


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(scope="module")
def tracking(home) -> Tracking:
    return Tracking(f"sqlite:///{home}/mlflow.db", home / "mlartifacts")


def test_a_run_holds_params_and_curves_by_phase_and_domain(tracking, home):
    from mlflow import MlflowClient

    params = {f"option {n}": n for n in range(150)}
    run_id = tracking.start_run("training of 2000-12-30", params=params, tags={"as_of": "2000-12-30"})
    epochs = [Point("backbone", "loss", epoch, 1 / epoch) for epoch in range(1, 1201)]
    domains = [Point("expert", "auc", 1, 0.7, domain) for domain in ("K-12 student", "K-12/student", 12)]
    tracking.log_points(run_id, [*epochs, *domains, Point("gate", "auc", 1, float("nan"), "thin")])
    other = Tracking(tracking.url, tracking.artifacts)  # as another process would
    other.log_points(run_id, [Point("gate", "wauc", 1, 0.8)])
    other.end_run(run_id)

    client = MlflowClient(tracking_uri=tracking.url)
    run = client.get_run(run_id)
    assert run.data.params == {name: str(value) for name, value in params.items()}
    assert run.info.status == "FINISHED" and run.data.tags["as_of"] == "2000-12-30"
    assert run.info.artifact_uri.startswith((home / "mlartifacts").as_uri())
    curve = client.get_metric_history(run_id, "backbone/loss")
    assert [(point.step, point.value) for point in curve] == [(p.step, p.value) for p in epochs]
    assert set(run.data.metrics) == {
        "backbone/loss",
        "gate/wauc",
        "expert/12/auc",
        "expert/K-12 student/auc",
        "expert/K-12.2f.student/auc",
    }


@pytest.mark.parametrize("domain", ["", " ", "..", "../x", "женщины", "a'b%", "." * 3, "x" * 1000, "ж" * 500])
def test_any_domain_can_name_a_curve(tracking, domain):
    run_id = tracking.start_run("odd names", params={})
    tracking.log_points(run_id, [Point("expert", "auc", 1, 0.5, domain)])
    tracking.end_run(run_id, failed=True)


def test_long_names_of_domains_stay_apart():
    names = {Point("test/crosses", "calibration", 1, 0.5, "x" * 999 + last).name for last in "ab"}
    assert len(names) == 2 and all(len(name) <= 250 for name in names)


def test_aliases_follow_and_a_bundle_is_registered_once(tracking, home):
    from mlflow import MlflowClient

    assert tracking.aliases() == {}
    first, second = "20001230-aaaaaaaa", "20001231-bbbbbbbb"
    number = tracking.mirror_alias(first, "champion", home / "bundles" / first)
    tracking.mirror_alias(second, "challenger", home / "bundles" / second)
    assert tracking.aliases() == {"champion": first, "challenger": second}
    tracking.mirror_alias(second, "champion", home / "bundles" / second)
    assert tracking.mirror_alias(first, "challenger", home / "bundles" / first) == number
    assert tracking.aliases() == {"champion": second, "challenger": first}
    client = MlflowClient(tracking_uri=tracking.url)
    versions = client.search_model_versions("name = 'mmlora'")
    assert {v.tags["model_version"]: v.source for v in versions} == {
        version: (home / "bundles" / version).as_uri() for version in (first, second)
    }


def test_it_is_silent(tracking, capfd, caplog):
    with caplog.at_level(logging.INFO, logger="mmlora"):
        tracking.end_run(tracking.start_run("quiet", params={"a": 1}))
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow  # MLflow waits 20 s for a lock
def test_a_locked_database_is_worth_a_retry(tracking, home):
    run_id = tracking.start_run("locked", params={})
    holder = sqlite3.connect(home / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(TransientError, match="locked"):
            tracking.log_points(run_id, [Point("gate", "wauc", 1, 0.8)])
        with pytest.raises(TransientError, match="locked"):
            Tracking(tracking.url, tracking.artifacts).start_run("another", params={})
    finally:
        holder.rollback()
        holder.close()
    tracking.log_points(run_id, [Point("gate", "wauc", 1, 0.8)])
