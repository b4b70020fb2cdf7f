"""Both DAGs, run for real by ``dag.test()`` on a small made-up workspace, on SQLite and on PostgreSQL.

In a process of its own: Airflow reads its settings once, and changes logging for good.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

ON_SERVER = [pytest.mark.slow, pytest.mark.postgres]
WAREHOUSES = pytest.mark.parametrize("warehouse", ["sqlite", pytest.param("postgresql", marks=ON_SERVER)])
FIRST_DAY, DAYS, USERS, ITEMS = datetime(2024, 3, 1), 12, 20, 30
# Two domains that are rich by the settings below, and one that is thin.
ROWS = {"comedy": 600, "drama": 600, "short": 40}
SETTINGS = {
    "MMLORA_CHECKS__RICH_MIN_ROWS": "200",
    "MMLORA_TRAINING__MAX_EPOCHS": "2",
    "MMLORA_TRAINING__HIDDEN_UNITS": "[16, 8]",
    "MMLORA_TRAINING__EMBEDDING_DIM": "4",
    "OMP_NUM_THREADS": "1",
    "GX_ANALYTICS_ENABLED": "false",
}


def write_tables(folder: Path) -> None:
    rng = random.Random(0)
    interactions = []
    for domain, rows in ROWS.items():
        for _ in range(rows):
            user, item = rng.randrange(USERS), rng.randrange(ITEMS)
            when = FIRST_DAY + timedelta(seconds=rng.randrange(DAYS * 86_400))
            label = int(rng.random() < (0.6 if (user + item) % 2 else 0.2))
            interactions.append([user, f"item-{item}", domain, f"{when.isoformat()}Z", label])
    header = ["user_id", "item_id", "domain_id", "event_timestamp", "label"]
    users = [[user, 18 + user % 5] for user in range(USERS)]
    for name, rows in (("interactions", [header, *interactions]), ("users", [["user_id", "age"], *users])):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def outcome_on(tmp_path_factory, request, mlflow_store):
    """Return what run_dags.py printed with a warehouse of a kind; each kind is run once."""

    @cache
    def outcome(warehouse):
        if warehouse == "postgresql":
            with empty_database(request.getfixturevalue("postgres_server")) as url:
                return run_dags(tmp_path_factory.mktemp("dags"), mlflow_store, url)
        return run_dags(tmp_path_factory.mktemp("dags"), mlflow_store, "")

    return outcome


@contextmanager
def empty_database(postgres_server):
    """Yield the URL of a database that is empty at first."""
    import psycopg
    import sqlalchemy as sa

    name = f"mmlora_test_dags_{uuid.uuid4().hex[:8]}"
    server = sa.make_url(postgres_server).set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield server.set(database=name).render_as_string(hide_password=False)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def run_dags(folder, mlflow_store, warehouse_url):
    write_tables(folder)
    (folder / "home").mkdir()
    shutil.copy(mlflow_store, folder / "home")
    script = Path(__file__).with_name("run_dags.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), warehouse_url],
        env={**os.environ, **SETTINGS, "PYTHONPATH": str(script.parents[2])},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stdout + done.stderr}


def labels(run, task_id, state="success"):
    return {task["label"] for task in run["tasks"] if task["task_id"] == task_id and task["state"] == state}


@WAREHOUSES
def test_both_dags_succeed(outcome_on, warehouse):
    states = [(run["dag_id"], run["state"]) for run in outcome_on(warehouse)["runs"]]
    assert states == [("training", "success"), ("nightly_scoring", "success")], outcome_on(warehouse)["log"][
        -5000:
    ]


@WAREHOUSES
def test_experts_are_trained_for_domains_with_a_suitable_verdict(outcome_on, warehouse):
    training, _ = outcome_on(warehouse)["runs"]
    assert labels(training, "train_expert") == {"comedy", "drama"}


@WAREHOUSES
def test_every_domain_is_published_as_the_form_requests(outcome_on, warehouse):
    _, scoring = outcome_on(warehouse)["runs"]
    assert labels(scoring, "domain") == set(ROWS)
    for rows in outcome_on(warehouse)["published"].values():
        rows_by_user = Counter(row["user_id"] for row in rows)
        assert rows_by_user and max(rows_by_user.values()) == 5


@WAREHOUSES
def test_the_ranking_example_writes_the_lists_of_just_its_domains(outcome_on, warehouse):
    outcome = outcome_on(warehouse)
    ranking = outcome["ranking"]
    assert (ranking["state"], ranking["type"]) == ("success", "asset_triggered"), outcome["log"][-5000:]
    assert set(ranking["files"]) == {"comedy/2024-03-13.parquet", "drama/2024-03-13.parquet"}
    assert ranking["labels"] == ["", "comedy", "drama"]
    for file, rows in ranking["files"].items():
        published = outcome["published"][file.partition("/")[0]]
        assert [(row["user_id"], row["position"], row["score"]) for row in rows] == [
            (row["user_id"], row["position"], row["score"]) for row in published if row["position"] <= 3
        ]
        assert {"item_id"} <= rows[0].keys()


@pytest.mark.slow
@pytest.mark.postgres
def test_both_warehouses_hold_the_same_scores(outcome_on):
    assert outcome_on("sqlite")["published"] == outcome_on("postgresql")["published"]


def test_a_failing_domain_or_batch_fails_its_run_but_does_not_delay_others(outcome_on):
    outcome = outcome_on("sqlite")
    run = outcome["failures"]
    assert run["state"] == "failed"
    assert labels(run, "score", "failed") == {"short"}
    assert labels(run, "domain", "failed") == {"drama"}
    assert labels(run, "domain") == {"comedy"}
    assert "no drama tonight" in outcome["log"]


def test_one_alert_tells_of_a_failed_run_and_another_of_a_late_one(outcome_on):
    failed, late = outcome_on("sqlite")["alerts"]
    assert (failed["event"], failed["dag_id"], failed["date"]) == ("failed", "nightly_scoring", "2024-03-14")
    reasons = {each["domain"]: each["reason"] for each in failed["domains"]}
    assert set(reasons) == {"drama", "short"} and "no drama tonight" in reasons["drama"]
    assert failed["command"] == "mmlora score --date 2024-03-14 --domain drama --domain short --allow-stale"
    assert all(part in failed["text"] for part in ("drama", "short", failed["command"], failed["run_id"]))
    assert (late["event"], late["date"]) == ("is not done after 240 minutes", "2024-03-13")
    assert late["domains"] == [], "that night is published"
    assert "secret-path" not in outcome_on("sqlite")["log"]


def test_the_asset_lists_the_published_domains(outcome_on):
    events = outcome_on("sqlite")["asset_events"]
    assert [(event["date"], set(event["loads"])) for event in events if "loads" in event] == [
        ("2024-03-13", set(ROWS)),
        ("2024-03-14", {"comedy"}),
    ]


def test_each_published_domain_has_an_event_of_its_own_asset(outcome_on):
    outcome = outcome_on("sqlite")
    loads = [event["loads"] for event in outcome["asset_events"] if "loads" in event]
    own = Counter(event["load"] for event in outcome["asset_events"] if "load" in event)
    assert own == Counter(load for night in loads for load in night.values())
