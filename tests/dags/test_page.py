"""The page in Airflow's UI: who sees it, and what a browser shows, on Airflow's own authentication."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import use_workspace
from tests.dags.made_nights import CHALLENGER, CHAMPION, browser, make_nights, served

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

HEAVY = ("torch", "feast", "great_expectations", "pandas", "mlflow", "pyarrow", "duckdb")
TODAY = datetime.now(UTC).date()
"""What the page takes for today: a night may begin while the tests run."""
NIGHTS = 40


@pytest.fixture(scope="module")
def airflow_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """The plugin's app in an app with Airflow's session and users, but none of Airflow's own routes."""
    from airflow import settings
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.middlewares.refresh_token import JWTRefreshMiddleware
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from fastapi import FastAPI

    from mmlora.airflow_plugin import page as served_page
    from mmlora.airflow_plugin.plugin import MmloraPlugin

    import_all_models()
    Base.metadata.create_all(settings.engine)
    app = FastAPI()
    (page,) = MmloraPlugin.fastapi_apps
    app.mount(page["url_prefix"], page["app"])
    init_auth_manager(app)
    app.add_middleware(JWTRefreshMiddleware)
    home = tmp_path_factory.mktemp("nights") / "var"
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        here.setattr(served_page, "today", lambda: TODAY)
        make_nights(home, domains=6, nights=NIGHTS, today=TODAY)
        yield app


def token(role: str) -> str:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    return str(get_auth_manager().generate_jwt(SimpleAuthManagerUser(username="ann", role=role)))


@pytest.fixture
def client(airflow_app: FastAPI) -> TestClient:
    from fastapi.testclient import TestClient

    return TestClient(airflow_app, follow_redirects=False)


@pytest.fixture
def user(client: TestClient) -> TestClient:
    """Somebody who may trigger DAGs."""
    client.cookies.set("_token", token("user"))
    return client


def test_airflow_finds_the_plugin_and_its_import_is_cheap() -> None:
    (entry,) = entry_points(group="airflow.plugins", name="mmlora")
    loaded = f"[name for name in {HEAVY} if name in sys.modules]"
    code = f"import sys, airflow.plugins_manager, {entry.module}; print({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    (view,) = entry.load().external_views
    assert view["href"] == "mmlora/", "relative, for an Airflow below a path"


def test_whoever_is_not_logged_in_gets_the_login_and_no_data(client: TestClient) -> None:
    answer = client.get("/mmlora/")
    assert (answer.status_code, answer.headers["location"]) == (302, "../api/v2/auth/login?next=/mmlora/")
    for path in ("night?domain=domain-000&day=2026-01-01", "data-docs/index.html"):
        assert client.get(f"/mmlora/{path}").status_code == 401


def test_a_viewer_sees_the_page_with_its_buttons_disabled(client: TestClient) -> None:
    client.cookies.set("_token", token("viewer"))
    answer = client.get("/mmlora/")
    assert answer.status_code == 200
    buttons = [line for line in answer.text.splitlines() if "data-dialog=" in line]
    assert buttons and all("disabled" in line for line in buttons)
    assert "You may not trigger the DAG <code>promotion</code>" in answer.text


def test_a_user_gets_the_models_and_may_press_the_buttons(user: TestClient) -> None:
    text = user.get("/mmlora/").text
    assert f'data-champion="{CHAMPION}" data-challenger="{CHALLENGER}"' in text
    assert "+0.0024" in text and " disabled>" not in text


def test_a_night_says_which_check_failed_with_its_figure_and_why(user: TestClient) -> None:
    text = user.get("/mmlora/night", params={"domain": "domain-005", "day": str(TODAY)}).text
    assert "broken" in text and "1 failed" in text
    assert "figure 0.0025, threshold 0.25; blocks publication; owner mmlora" in text
    unknown = user.get("/mmlora/night", params={"domain": "<b>x</b>", "day": str(TODAY)})
    assert "<b>x" not in unknown.text and "none" in unknown.text
    assert user.get("/mmlora/night", params={"domain": "domain-005", "day": "tomorrow"}).status_code == 422


def test_data_docs_are_served_where_they_are(user: TestClient, tmp_path: Path, monkeypatch: Any) -> None:
    assert "mmlora validate" in user.get("/mmlora/data-docs/index.html").json()["detail"]
    home = tmp_path / "var"
    (home / "data_docs" / "verdicts").mkdir(parents=True)
    (home / "data_docs" / "verdicts" / "2026-01-01.html").write_text("<p>rich</p>", encoding="utf-8")
    monkeypatch.setenv("MMLORA_HOME", str(home))
    assert user.get("/mmlora/data-docs/verdicts/2026-01-01.html").text == "<p>rich</p>"
    for path in ("verdicts/..%2f..%2fsecret.html", "verdicts/passwd.html"):
        assert user.get(f"/mmlora/data-docs/{path}").status_code in (404, 422)


def test_a_warehouse_that_cannot_be_read_is_said_on_the_page(
    user: TestClient, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "empty"))
    text = user.get("/mmlora/").text
    assert 'role="alert"' in text and "there is no warehouse" in text


@pytest.mark.parametrize(
    ("url", "link"),
    [
        ("http://ann:secret@mlflow:5000/", "http://mlflow:5000/#/models/mmlora"),
        ("sqlite:///mlflow.db", None),
        ("", None),
    ],
)
def test_mlflow_is_linked_if_it_is_a_server_and_without_its_password(url: str, link: str | None) -> None:
    from mmlora.airflow_plugin.page import _mlflow

    assert _mlflow(url) == link


@pytest.fixture(scope="module")
def shown(airflow_app: FastAPI) -> Iterator[Any]:
    """A browser tab that is logged in, on a wide screen."""
    with served(airflow_app) as address, browser() as chromium:
        if chromium is None:
            pytest.skip("there is no Chromium on this machine to show the page")
        context = chromium.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": "_token", "value": token("user"), "url": address}])
        tab = context.new_page()
        faults: list[str] = []
        tab.on("pageerror", lambda error: faults.append(str(error)))
        tab.goto(f"{address}/mmlora/?days=30")
        yield tab
        assert faults == []


def cell(tab: Any, row: int, age: int) -> dict[str, float]:
    """Return where a cell lies on the canvas."""
    width = tab.evaluate("width")
    return {"x": (29 - age + 0.5) * width, "y": 22 + row * 18 + 9}


def test_a_click_on_a_cell_opens_its_night(shown: Any) -> None:
    shown.locator("#cells").click(position=cell(shown, 0, 3))
    shown.wait_for_selector("#night dl")
    text = shown.inner_text("#night")
    assert f"domain-000, {TODAY - timedelta(days=3)}" in text
    assert "score_shift" in text and "figure 0.61, threshold 0.25" in text and "owner modelling" in text
    shown.keyboard.press("Escape")
    assert shown.locator("#night").is_hidden()


def test_the_keyboard_reaches_every_cell(shown: Any) -> None:
    shown.locator("#cursor").focus()
    for key in ("End", "ArrowDown", "ArrowLeft"):
        shown.keyboard.press(key)
    label = shown.get_attribute("#cursor", "aria-label")
    assert label == f"domain-001, {TODAY - timedelta(days=1)}: published"
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#night dl")
    assert "80,000" in shown.inner_text("#night") and "57,831 pairs/s" in shown.inner_text("#night")
    shown.keyboard.press("Escape")
    assert shown.evaluate("document.activeElement.id") == "cursor"


def test_nothing_is_started_without_a_confirmation(shown: Any) -> None:
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.method))
    shown.locator("[data-dialog=promote]").first.click()
    assert f"Make {CHALLENGER} the champion of all domains" in shown.inner_text("#ask")
    shown.click("#cancel")
    assert shown.locator("#ask").is_hidden() and "POST" not in asked


def test_a_narrow_screen_shows_all_without_scrolling_the_page_sideways(shown: Any) -> None:
    shown.set_viewport_size({"width": 390, "height": 800})
    assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.locator("#cursor").focus()
    shown.keyboard.press("Enter")
    shown.wait_for_selector("#night dl")
    assert shown.locator("#night").bounding_box()["width"] == 390
    shown.keyboard.press("Escape")
    shown.set_viewport_size({"width": 1280, "height": 800})


def test_dark_and_light_differ_in_paper_and_cells(shown: Any) -> None:
    def colours() -> list[Any]:
        return [
            shown.evaluate("getComputedStyle(document.body).backgroundColor"),
            shown.evaluate("[...canvas.getContext('2d').getImageData(12, 31, 1, 1).data].join()"),
        ]

    shown.emulate_media(color_scheme="light")
    light = colours()
    shown.emulate_media(color_scheme="dark")
    shown.wait_for_timeout(100)
    assert all(before != after for before, after in zip(light, colours(), strict=True))
