"""The services of docker/compose.yaml, run as processes: nights, a killed scheduler, a clear and an alert."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from tests.conftest import SMALL, take_warehouse, use_workspace
from tests.dags.compose import Services, postgres
from tests.dags.reader import Reader
from tests.dags.receiver import webhook
from tests.dags.test_page_in_airflow import call

pytestmark = [pytest.mark.slow, pytest.mark.postgres, pytest.mark.timeout(1800)]
QUICK = {
    "OMP_NUM_THREADS": "1",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
}
"""Tasks whose scheduler was killed are noticed within seconds, not within five minutes."""
DOMAINS = ("news", "rare", "sport")


@dataclass
class Running:
    """The running services, and what they are asked for through Airflow's API."""

    services: Services
    warehouse: str
    alerts: list[dict[str, Any]]

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """Return what the API answers to the user `admin`."""
        address, airflow = f"http://{self.services.airflow}", self.services.folder / "airflow"
        passwords = json.loads((airflow / "simple_auth_manager_passwords.json.generated").read_text())
        login = {"username": "admin", "password": passwords["admin"]}
        token = call(address, "/auth/token", login)["access_token"]
        answer = call(address, f"/api/v2/{path}", body, token, method)
        assert not isinstance(answer, int), f"{path}: {answer}"
        return answer

    def trigger(self, dag: str, **form: Any) -> str:
        """Start a run; return its path in the API."""
        self.wait_for(lambda: self.ask(f"dags?dag_id_pattern={dag}")["dags"], "dag-processor")
        self.ask(f"dags/{dag}", {"is_paused": False}, "PATCH")
        run = self.ask(f"dags/{dag}/dagRuns", {"logical_date": None, "conf": form})
        return f"dags/{dag}/dagRuns/{run['dag_run_id']}"

    def ended(self, run: str, service: str = "scheduler") -> str:
        """Wait for the end of a run; return its state."""
        ends = ("success", "failed")
        return str(self.wait_for(lambda: (state := self.ask(run)["state"]) in ends and state, service))

    def wait_for(self, done: Any, service: str, seconds: float = 600, pause: float = 1) -> Any:
        """Wait until something is so; return it."""
        end = monotonic() + seconds
        while not (found := done()):
            if monotonic() > end:
                pytest.fail(self.services.tail(service))
            sleep(pause)
        return found


@pytest.fixture(scope="module")
def running(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All services, on a workspace with a model."""
    folder = tmp_path_factory.mktemp("compose")
    home = Path(shutil.copytree(trained[0], folder / "mmlora"))
    for name in ("airflow", "mlflow"):
        (folder / name).mkdir()
    with (
        pytest.MonkeyPatch.context() as here,
        postgres() as (server, programs),
        webhook() as (address, alerts),
    ):
        use_workspace(here, home)
        beside = {**SMALL, **QUICK, "MMLORA_ALERTS__WEBHOOK": address}
        services = Services(folder, server, programs, beside)
        environment = services.environment("scheduler")
        assert environment["MMLORA_HOME"] == str(home)
        warehouse = environment["MMLORA_WAREHOUSE_URL"]
        take_warehouse(here, home, trained[1], warehouse)
        try:
            services.start("scheduler")
            services.start("dag-processor")
            yield Running(services, warehouse, alerts)
        finally:
            services.stop_all()
    assert services.processes() == []


def test_nights_are_published_though_the_scheduler_is_killed_and_tasks_are_cleared(running: Running) -> None:
    first = running.trigger("nightly_scoring", date="2001-04-08")
    assert running.ended(first) == "success", running.services.tail("scheduler")
    reader = Reader.of_postgresql(running.warehouse)
    published = reader.read()
    assert set(published) == {(domain, "2001-04-08") for domain in DOMAINS}
    with reader.polling():
        second = running.trigger("nightly_scoring", date="2001-04-09")
        running.wait_for(lambda: _state(running, second, "score") == "running", "scheduler", pause=0.2)
        running.services.kill("scheduler")
        assert _state(running, second, "score") == "running", "nobody has noticed yet"
        running.services.start("scheduler")
        assert running.ended(second) == "success", running.services.tail("scheduler")
        clear = {"dag_run_id": first.rpartition("/")[2], "task_ids": ["score"], "include_downstream": True}
        running.ask(
            "dags/nightly_scoring/clearTaskInstances", {**clear, "dry_run": False, "only_failed": False}
        )
        assert running.ended(first) == "success", running.services.tail("scheduler")
    after = reader.read()
    assert set(after) == {(domain, f"2001-04-0{day}") for domain in DOMAINS for day in (8, 9)}
    assert all(after[night].load != each.load for night, each in published.items()), "they were scored again"
    assert running.alerts == []


def _state(running: Running, run: str, task: str) -> str | None:
    instances = running.ask(f"{run}/taskInstances?limit=100")["task_instances"]
    return next((each["state"] for each in instances if each["task_id"] == task), None)


def test_a_failed_backfill_is_told_by_the_webhook(running: Running) -> None:
    with psycopg.connect(running.warehouse) as connection:
        connection.execute(
            "ALTER TABLE score_loads ADD CONSTRAINT no_sport CHECK (domain_id <> 'sport') NOT VALID"
        )
    run = running.trigger("backfill", start="2001-04-07", end="2001-04-07", domains=["news", "sport"])
    assert running.ended(run) == "failed"
    running.wait_for(lambda: running.alerts, "dag-processor")
    (alert,) = running.alerts
    assert [(night["domain"], night["date"]) for night in alert["nights"]] == [("sport", "2001-04-07")]
    assert "no_sport" in alert["text"] and alert["run_id"] == run.rpartition("/")[2]
    assert alert["command"] == "mmlora backfill --domain sport --start 2001-04-07 --end 2001-04-07"
