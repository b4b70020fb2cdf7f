"""Passwords are in no message, log, ledger, file or MLflow, however they got into the settings."""

from __future__ import annotations

import logging
import sqlite3
import sys
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from mmlora import redaction
from mmlora.errors import TransientError
from mmlora.nights.failures import describe
from mmlora.pipeline.features import build_features
from mmlora.pipeline.init import init_workspace
from mmlora.pipeline.migrate import migrate_warehouse
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.redaction import RedactingFormatter, redact, remember
from mmlora.registry.tracking import Tracking
from mmlora.schema import IdTypes
from mmlora.settings import Settings, load_settings
from mmlora.warehouse.backends.postgresql import driver_url
from mmlora.warehouse.warehouse import Warehouse
from mmlora.workspace import open_workspace
from mmlora_cli.main import main

PLANTED = "pl4nted w/ord"
WRITTEN = "pl4nted%20w%2Ford"
PIECES = ("pl4nted", "w/ord", "w%2Ford")


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "remembered", set())


def _no_secret(text: str) -> bool:
    return not any(piece in text for piece in PIECES)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{WRITTEN}@127.0.0.1:1/db",
        f"postgresql://user:{WRITTEN}@127.0.0.1:1/db?sslpassword={WRITTEN}&password={WRITTEN}",
        f"postgresql://127.0.0.1:1/db?user=me&password={WRITTEN}",
        f"postgresql://user:{PLANTED}@127.0.0.1:port/db",
        f"postgresql://user:{PLANTED}@b@127.0.0.1:port/db",
        f"postgresql:/user:{WRITTEN}@127.0.0.1/db",
        f"postgresql//user:{WRITTEN}@127.0.0.1/db",
        f"user:{WRITTEN}@127.0.0.1",
        "user:pl4nted@127.0.0.1",
        f"host=127.0.0.1 password='{PLANTED}'",
        f"mysql://user:{WRITTEN}@127.0.0.1/db?ssl_password={WRITTEN}",
        f"sqlite://user:{WRITTEN}@127.0.0.1/db",
        f"postgresql://user:{WRITTEN}@127.0.0.1:1/db?passwort={WRITTEN}&sslmode=maybe",
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_invalid_url_is_refused_without_showing_its_password(
    made_up_workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    debug: bool,
) -> None:
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", url)
    monkeypatch.setattr(sys, "argv", ["mmlora", *(["--debug"] if debug else []), "migrate"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code
    assert "mmlora: " in said
    assert _no_secret(said), said


@pytest.mark.parametrize(
    "line",
    [
        f'warehouse_ulr = "postgresql://user:{WRITTEN}@host/db"',
        f'warehouse_url = ["postgresql://user:{WRITTEN}@host/db"]',
        f'training = "postgresql://user:{WRITTEN}@host/db"',
        f'[warehouse_url]\npassword = "{PLANTED}"',
        f'[warehouse]\npassword = "{PLANTED}"',
        f'[training]\nmlflow_url = "http://user:{WRITTEN}@host"',
        f'[training]\nrank = "http://user:{WRITTEN}@host"',
        f'warehouse_url = "postgresql://user:{WRITTEN}@host/db',
    ],
)
def test_an_unknown_setting_is_named_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmlora.toml").write_text(line + "\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["mmlora", "--debug", "status"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert "mmlora: " in said
    assert _no_secret(said), said


def test_init_writes_a_settings_file_with_defaults_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("WAREHOUSE_URL", "MLFLOW_URL", "FEAST_REGISTRY_URL"):
        monkeypatch.setenv(f"MMLORA_{name}", f"postgresql://user:{WRITTEN}@host/db")
    init_workspace()
    assert _no_secret((tmp_path / "mmlora.toml").read_text(encoding="utf-8"))
    monkeypatch.setenv("MMLORA_SHARED_URL", f"s3://key:{WRITTEN}@bucket/path")
    assert _no_secret(repr(load_settings())), "nor has a traceback that shows the settings"


def test_logs_are_redacted_with_their_tracebacks() -> None:
    remember(f"postgresql://user:{WRITTEN}@host/db")
    try:
        raise RuntimeError(f"no connection with {PLANTED}")
    except RuntimeError:
        record = logging.LogRecord("library", logging.ERROR, "", 1, "failed: %s", (WRITTEN,), sys.exc_info())
    text = RedactingFormatter("%(levelname)s %(message)s").format(record)
    assert _no_secret(text)
    assert text.startswith("ERROR failed: ***\nTraceback")


def test_stored_and_printed_reasons_contain_no_secret(tmp_path: Path) -> None:
    remember(f"postgresql://user:{WRITTEN}@host/db")
    told = f"no connection with {PLANTED}"
    assert describe(RuntimeError(told)) == "unexpected RuntimeError: no connection with ***"
    with Warehouse.open(f"sqlite:///{tmp_path}/w.db", ids=IdTypes("int64", "int64", "string")) as warehouse:
        warehouse.record_failure("news", date(2001, 1, 2), told)
        load = warehouse.begin_load("news", date(2001, 1, 2), model_version="m", contract_hash="c")
        warehouse.record(load, "override", who="me", why=told)
        assert _no_secret(str(warehouse.ledger("news")))
    assert not any(piece.encode() in (tmp_path / "w.db").read_bytes() for piece in PIECES)


def test_text_without_secrets_is_unchanged() -> None:
    remember("postgresql://postgres:postgres@host/postgres")
    remember("postgresql://me:db@host/scores")
    text = "warehouse postgresql://host/postgres: domain 'db' of postgres has 3 tokens; see user@example.org"
    assert redact(text) == text


def test_urls_in_library_errors_are_redacted(tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    url = f"unheard-of://user:{WRITTEN}@127.0.0.1/db"
    Settings(mlflow_url=url)
    with pytest.raises(MlflowException) as caught:
        Tracking(url, tmp_path).start_run("run", params={})
    assert WRITTEN in str(caught.value), "MLflow says it"
    assert _no_secret(redact(str(caught.value)))
    assert _no_secret(str(TransientError(f"no answer: {caught.value}")))


@pytest.mark.slow
@pytest.mark.postgres
def test_a_night_stores_the_password_nowhere(
    made_up_workspace: Path,
    tmp_path: Path,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = sa.make_url(postgres_url).set(password=PLANTED).render_as_string(hide_password=False)
    assert not _no_secret(url)
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", url)
    monkeypatch.setenv("MMLORA_FEAST_REGISTRY_URL", url.replace("postgresql:", "postgresql+psycopg:"))
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PLANTED)
    init_workspace()
    told = [build_features(date(2001, 4, 8)).to_json(), migrate_warehouse().to_json()]
    told.append(train(date(2001, 4, 8), features="ids", adaptation="none").to_json())
    told.append(score_and_publish(date(2001, 4, 9), domain="news").to_json())
    told.append(status().to_json())
    with open_workspace().open_warehouse() as warehouse:
        load = warehouse.begin_load("news", date(2001, 4, 10), model_version="v", contract_hash="c")
        warehouse.fail(load, reason=f"OSError: no answer from {url}")
        with warehouse.database.reading() as connection:
            names = connection.exec_driver_sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            )
            rows = [
                str(connection.exec_driver_sql(f'SELECT t::text FROM "{name}" AS t').all())
                for (name,) in names.all()
            ]
    assert any("no answer from" in text for text in rows)
    assert [text for text in rows if not _no_secret(text)] == []
    said = "".join(capfd.readouterr()) + str(told)
    assert _no_secret(said)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert [path for path in files if not _no_secret(path.read_bytes().decode("latin-1"))] == []
    assert "${MMLORA_FEAST_REGISTRY_URL}" in (made_up_workspace / "feast/feature_store.yaml").read_text()
    connection = sqlite3.connect(made_up_workspace / "mlflow.db")
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    "query",
    ["options=-c%20search_path%3Dmmlora,public%20-c%20statement_timeout%3D90s", "application_name=a+b%20c"],
)
def test_a_url_means_the_same_to_every_driver(postgres_url: str, query: str) -> None:
    from adbc_driver_postgresql import dbapi

    plain = sa.make_url(postgres_url)
    with Warehouse.open(postgres_url, ids=IdTypes()) as warehouse, warehouse.database.writing() as connection:
        connection.exec_driver_sql("CREATE SCHEMA mmlora")
    text = plain.set(password="a b'c\\d").render_as_string(hide_password=False)
    url = text + ("&" if plain.query else "?") + query
    ask = "SELECT current_setting('search_path') || current_setting('statement_timeout')"
    with Warehouse.open(url, ids=IdTypes()) as warehouse:
        with warehouse.database.reading() as connection:
            expected = connection.exec_driver_sql(ask).scalar_one()
        with dbapi.connect(driver_url(warehouse.database.engine)) as adbc, adbc.cursor() as cursor:
            cursor.execute(ask)
            assert cursor.fetchone() == (expected,)
