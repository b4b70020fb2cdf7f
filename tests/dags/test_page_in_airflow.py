"""The page in a real Airflow: its navigation, its login, and runs that the page's buttons trigger."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from mmlora.resources import resource
from tests.conftest import today, use_workspace
from tests.dags.made_nights import CHALLENGER, browser, make_nights

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
PASSWORDS = {"ann": "apple", "vic": "vinegar"}
ROLES = {"ann": "user", "vic": "viewer"}


def call(address: str, path: str, body: object = None, token: str = "", method: str | None = None) -> Any:
    """Return what Airflow's API answers; the status code where it refuses."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(address + path, data, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code


@dataclass(frozen=True)
class Server:
    """An API server: its address, and the folder with its database."""

    address: str
    home: Path

    def token(self, name: str) -> str:
        login = {"username": name, "password": PASSWORDS[name]}
        return str(call(self.address, "/auth/token", login)["access_token"])

    @contextmanager
    def tab(self, name: str) -> Iterator[Any]:
        """Open a browser tab in which a user is logged in."""
        with browser() as chromium:
            if chromium is None:
                pytest.skip("there is no Chromium on this machine to show the page")
            context = chromium.new_context(viewport={"width": 1280, "height": 800})
            context.add_cookies([{"name": "_token", "value": self.token(name), "url": self.address}])
            yield context.new_page()


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An API server that has the DAGs, and a workspace with nights."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "passwords.json").write_text(json.dumps(PASSWORDS), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, folder / "var")
        make_nights(folder / "var", domains=4, nights=40, today=today(minutes=5))
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(resource("dags")),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(map(":".join, ROLES.items())),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
            "AIRFLOW__API__WORKERS": "1",
        }
        for command in (["db", "migrate"], ["dags", "reserialize"]):
            subprocess.run([AIRFLOW, *command], env=environment, check=True, capture_output=True)
        server = subprocess.Popen(
            [AIRFLOW, "api-server", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            wait(address, server)
            yield Server(address, folder / "airflow")
        finally:
            server.terminate()
            server.wait()


def wait(address: str, server: subprocess.Popen[bytes], seconds: float = 240.0) -> None:
    """Wait until the server answers."""
    end = monotonic() + seconds
    while monotonic() < end:
        assert server.poll() is None, "the API server ended"
        try:
            call(address, "/api/v2/version")
            return
        except OSError:
            sleep(0.5)
    pytest.fail("the API server didn't answer in time")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_in_airflow_triggers_what_its_user_may(airflow: Server) -> None:
    address, ann, vic = airflow.address, airflow.token("ann"), airflow.token("vic")
    runs, body = "/api/v2/dags/backfill/dagRuns", {"logical_date": None, "conf": {}}
    assert call(address, runs, body, vic) == 403
    assert call(address, runs, body) == 401
    assert call(address, "/mmlora/night?domain=domain-000&day=2026-01-01") == 401
    with airflow.tab("ann") as tab:
        tab.goto(f"{address}/plugin/mmlora")
        page = tab.frame_locator("iframe[title=mmlora]")
        page.locator("#cursor").click()
        page.locator("#night dl").wait_for()
        page.locator("#night [data-dialog=backfill]").click()
        page.locator("#start").click()
        page.get_by_text("The DAG backfill is switched off").wait_for()
        with tab.context.expect_page() as opened:
            page.locator("#answer a").click()
        assert "/dags/backfill/runs/" in opened.value.url
        page.locator("#cancel").click()
        page.locator("#night .close").click()
        page.locator("[data-dialog=promote]").nth(1).click()
        page.locator("#fields input").fill("better on the last week")
        page.locator("#start").click()
        page.get_by_text("The DAG promotion is switched off").wait_for()
        tab.context.clear_cookies()
        tab.goto(f"{address}/mmlora/")
        assert "/auth/login" in tab.url and "next=" in tab.url
    (filled,) = call(address, runs, token=ann)["dag_runs"]
    assert filled["triggering_user_name"] == "ann" and filled["conf"]["domains"] == ["domain-000"]
    (promoted,) = call(address, "/api/v2/dags/promotion/dagRuns", token=ann)["dag_runs"]
    asked = {
        "action": "promote",
        "model_version": CHALLENGER,
        "domain": "domain-000",
        "why": "better on the last week",
    }
    assert {name: promoted["conf"][name] for name in asked} == asked


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_night_links_the_log_of_the_task_that_scored_it(airflow: Server) -> None:
    began = datetime.combine(today(minutes=5), time(1, 5), tzinfo=UTC)
    body = {"logical_date": None, "conf": {"start": "2026-01-02", "end": "2026-01-02"}}
    run = call(airflow.address, "/api/v2/dags/backfill/dagRuns", body, airflow.token("ann"))["dag_run_id"]
    # What the scheduler and the worker write when the mapped task of this domain runs.
    with closing(sqlite3.connect(airflow.home / "airflow.db")) as database, database:
        for name in ("fill", "domains"):
            database.execute(
                "UPDATE task_instance SET state = 'success', map_index = 0, rendered_map_index = ?, "
                "start_date = ?, end_date = ? WHERE task_id = ? AND run_id = ?",
                (
                    *("domain-000", str(began - timedelta(minutes=2)), str(began + timedelta(minutes=2))),
                    *(name, run),
                ),
            )
    with airflow.tab("ann") as tab:
        tab.goto(f"{airflow.address}/mmlora/")
        tab.locator("#cursor").click()
        tab.locator("#log").wait_for()
        tab.locator("#log").click()
        tab.wait_for_url("**/dags/backfill/runs/*/tasks/fill/mapped/0")
        tab.get_by_text("domain-000").first.wait_for()


@pytest.mark.slow
def test_airflow_lists_the_page_in_its_navigation(airflow: Server) -> None:
    listed = call(airflow.address, "/api/v2/plugins", token=airflow.token("ann"))["plugins"]
    (plugin,) = (plugin for plugin in listed if plugin["name"] == "mmlora")
    (view,) = plugin["external_views"]
    assert (view["href"], view["url_route"], view["destination"]) == ("mmlora/", "mmlora", "nav")
