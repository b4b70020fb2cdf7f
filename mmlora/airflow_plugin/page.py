"""The page in Airflow's UI: nights by domain, one night's load and checks, champions and challengers.

It reads the warehouse and the Data Docs, and needs nothing else of the workspace. Whoever may see the runs of
``nightly_scoring`` may see it. It changes nothing by itself: its buttons trigger DAGs by Airflow's own REST
API, in the browser and with the user's own session.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from mmlora.airflow_plugin.night import night_facts
from mmlora.errors import MmloraError, UsageError
from mmlora.pipeline.read import open_published
from mmlora.settings import load_settings
from mmlora.templates import render
from mmlora.warehouse.night_states import NightStates, night_states
from mmlora.warehouse.standing_models import standing_models
from mmlora.workspace import Workspace

PERIODS = (30, 90, 365)
"""Numbers of nights that the page offers."""
ACTIONS = ("backfill", "promotion")
"""DAGs that the page's buttons trigger."""

may_read = Depends(
    requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN, param_dag_id="nightly_scoring")
)
app = FastAPI(title="mmlora", dependencies=[may_read], docs_url=None, redoc_url=None, openapi_url=None)


@app.exception_handler(HTTPException)
async def _log_in(request: Request, error: HTTPException) -> Response:
    """Lead whoever opens the page without being logged in to Airflow's login."""
    if error.status_code == 401 and request.url.path.endswith("/mmlora/"):
        return RedirectResponse(f"../api/v2/auth/login?next={quote(request.url.path)}", 302)
    return await http_exception_handler(request, error)


@app.exception_handler(MmloraError)
async def _say_what_is_wrong(_: Request, error: MmloraError) -> Response:
    return JSONResponse({"detail": str(error)}, 404 if isinstance(error, UsageError) else 503)


@app.get("/", response_class=HTMLResponse)
def page(user: GetUserDep, days: Annotated[int, Query(ge=1, le=3660)] = PERIODS[1]) -> str:
    """Show the states of the last nights, and the models."""
    states, models, fault = NightStates(today(), 0, {}), [], ""
    try:
        with open_published() as warehouse, warehouse.reads_in_a_row():
            states = night_states(
                warehouse.database,
                warehouse.tables,
                days=days,
                today=today(),
                silence=timedelta(seconds=load_settings().scoring.stale_after_seconds),
            )
            models = standing_models(warehouse.database, warehouse.tables, states.domains)
    except MmloraError as error:
        fault = str(error)
    return render(
        "mmlora.pages",
        "nights.html",
        states=states,
        models=models,
        fault=fault,
        periods=PERIODS,
        may={dag: may_trigger(user, dag) for dag in ACTIONS},
    )


def today() -> date:
    """Return the date in UTC, with which the map ends."""
    return datetime.now(UTC).date()


def may_trigger(user: Any, dag: str) -> bool:
    """Return whether a user may trigger a DAG; Airflow's API checks it again when a button is pressed."""
    details = DagDetails(id=dag, team_name=DagModel.get_team_name(dag))
    return bool(
        get_auth_manager().is_authorized_dag(
            method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )


@app.get("/night", response_class=HTMLResponse)
def night(domain: str, day: date) -> str:
    """Show what became of a domain's night, as a part of the page."""
    with open_published() as warehouse, warehouse.reads_in_a_row():
        facts = night_facts(warehouse, domain, day)
    workspace, docs = Workspace(load_settings()), f"verdicts/{day}.html"
    return render(
        "mmlora.pages",
        "night.html",
        night=facts,
        data_docs=f"data-docs/{docs}" if workspace.stored(f"data_docs/{docs}") else None,
        mlflow=_mlflow(workspace.settings.mlflow_url),
    )


def _mlflow(url: str) -> str | None:
    """Return the address of the models in MLflow, if it is a server, without a password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return None
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}/#/models/mmlora"


@app.get("/data-docs/index.html")
def data_docs() -> HTMLResponse:
    """Show the index of the Data Docs."""
    return _data_docs("index.html")


@app.get("/data-docs/verdicts/{day}.html")
def data_docs_of(day: date) -> HTMLResponse:
    """Show a date's Data Docs."""
    return _data_docs(f"verdicts/{day}.html")


def _data_docs(name: str) -> HTMLResponse:
    content = Workspace(load_settings()).stored(f"data_docs/{name}")
    if content is None:
        raise HTTPException(404, f"there are no Data Docs {name}: `mmlora validate` writes them")
    return HTMLResponse(content)
