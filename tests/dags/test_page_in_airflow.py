"""The page in a real Airflow: its navigation, its login, and runs that the page's buttons trigger."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mmlora.resources import resource
from tests.conftest import use_workspace
from tests.dags.made_nights import CHALLENGER, browser, make_nights

AIRFLOW = str(Path(sys.executable).with_name("airflow"))
PASSWORDS = {"ann": "apple", "vic": "vinegar"}
ROLES = {"ann": "user", "vic": "viewer"}


def call(address: str, path: str, body: object = None, token: str = "") -> Any:
    """Return what Airflow's API answers; the status code where it refuses."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data, headers)) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API server that has the DAGs, and a workspace with nights."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "passwords.json").write_text(json.dumps(PASSWORDS), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, folder / "var")
        make_nights(folder / "var", domains=4, nights=40, today=datetime.now(UTC).date())
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
            yield address
        finally:
            server.terminate()
            server.wait()


def wait(address: str, server: subprocess.Popen[bytes], seconds: float = 240.0) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "the API server ended"
        try:
            call(address, "/api/v2/version")
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the API server didn't answer in time")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_in_airflow_triggers_what_its_user_may(airflow: str) -> None:
    tokens = {
        name: call(airflow, "/auth/token", {"username": name, "password": PASSWORDS[name]}) for name in ROLES
    }
    ann, vic = (tokens[name]["access_token"] for name in ("ann", "vic"))
    runs = "/api/v2/dags/backfill/dagRuns"
    conf = {"start": "2026-01-01", "end": "2026-01-01"}
    assert call(airflow, runs, {"logical_date": None, "conf": conf}, vic) == 403
    assert call(airflow, runs, {"logical_date": None, "conf": conf}) == 401
    assert call(airflow, "/mmlora/night?domain=domain-000&day=2026-01-01") == 401

    with browser() as chromium:
        if chromium is None:
            pytest.skip("there is no Chromium on this machine to show the page")
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        tab = context.new_page()
        tab.goto(f"{airflow}/mmlora/")
        assert "/auth/login" in tab.url and "next=" in tab.url
        context.add_cookies([{"name": "_token", "value": ann, "url": airflow}])
        tab.goto(f"{airflow}/plugin/mmlora")
        page = tab.frame_locator("iframe[title=mmlora]")
        page.locator("#cursor").click()
        page.locator("#night dl").wait_for()
        page.locator("#night [data-dialog=backfill]").click()
        page.locator("#start").click()
        page.get_by_text("The DAG backfill is switched off").wait_for()
        with context.expect_page() as opened:
            page.locator("#answer a").click()
        assert "/dags/backfill/runs/" in opened.value.url
        page.locator("#cancel").click()
        page.locator("#night .close").click()
        page.locator("[data-dialog=promote]").nth(1).click()
        page.locator("#fields input").fill("better on the last week")
        page.locator("#start").click()
        page.get_by_text("The DAG promotion is switched off").wait_for()

    (filled,) = call(airflow, runs, token=ann)["dag_runs"]
    assert filled["triggering_user_name"] == "ann" and filled["conf"]["domains"] == ["domain-000"]
    (promoted,) = call(airflow, "/api/v2/dags/promotion/dagRuns", token=ann)["dag_runs"]
    asked = {
        "action": "promote",
        "model_version": CHALLENGER,
        "domain": "domain-000",
        "why": "better on the last week",
    }
    assert {name: promoted["conf"][name] for name in asked} == asked


@pytest.mark.slow
def test_airflow_lists_the_page_in_its_navigation(airflow: str) -> None:
    login = {"username": "ann", "password": PASSWORDS["ann"]}
    token = call(airflow, "/auth/token", login)["access_token"]
    (plugin,) = (p for p in call(airflow, "/api/v2/plugins", token=token)["plugins"] if p["name"] == "mmlora")
    (view,) = plugin["external_views"]
    assert (view["href"], view["url_route"], view["destination"]) == ("mmlora/", "mmlora", "nav")
