"""Two machines without a common disk take a workspace from an import to published scores, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.nights.load import score
from mmlora.settings import load_settings
from mmlora.shared.remote import Remote
from mmlora.workspace import Workspace, open_workspace, shared_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp, published, use_workspace

pytestmark = pytest.mark.postgres

TRAINED, NIGHT = date(2001, 4, 8), date(2001, 4, 9)
GONE = "u01"
On = Callable[[str], Path]


def use_servers(monkeypatch: pytest.MonkeyPatch, url: str, new_database: Callable[[], str]) -> None:
    """Have the workspace shared at a URL, with all databases on a server."""
    monkeypatch.setenv("MMLORA_SHARED_URL", url)
    monkeypatch.setenv("MMLORA_WAREHOUSE_URL", new_database())
    for name in ("MMLORA_MLFLOW_URL", "MMLORA_FEAST_REGISTRY_URL"):
        database = sa.make_url(new_database()).set(drivername="postgresql+psycopg")
        monkeypatch.setenv(name, database.render_as_string(hide_password=False))


@pytest.fixture
def on(s3_url: str, new_database: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> On:
    """Makes a machine by its name the one that commands run on, and returns its home."""
    use_servers(monkeypatch, s3_url, new_database)

    def use(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        use_workspace(monkeypatch, tmp_path / name / "var")
        return tmp_path / name / "var"

    return use


def mmlora(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout) if done.stdout else done.exception


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_crosses_machines(
    on: On, s3_url: str, made_up: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("a")
    mmlora("data", "import", made_up.interactions, "--users", made_up.users, "--items", made_up.items)
    on("b")
    mmlora("features", "build", "--through", NIGHT)
    trained = mmlora("train", "--as-of", TRAINED, "--features", "all", "--adaptation", "none")
    a = on("a")
    mmlora("validate", "--as-of", NIGHT)
    with pytest.raises(UsageError, match="the workspace is shared"):
        score(NIGHT, "news")
    with shared_workspace():
        load = score(NIGHT, "news")
    assert [path.name for path in a.glob("training_sets/*/*")] == [], "a night reads no training set"
    b = on("b")
    mmlora("publish", load)
    assert len(published()) > 100
    assert {row["fault"] for row in mmlora("verify")} == {""}
    on("a")
    (news, *_) = mmlora("status")["domains"]
    assert (news["score_date"], news["model_version"]) == (str(NIGHT), trained["model_version"])

    c = on("c")
    erased = mmlora("erase", "--user", GONE, "--reason", "a request")
    assert erased["interactions"] and erased["scores"] and erased["files"]
    assert all(GONE not in ids_of(content) for content in objects(s3_url))
    on("b")
    mmlora("features", "build", "--through", NIGHT)
    for home in (b, c):
        files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
        assert all(GONE not in ids_of(content) for content in files)

    nobody = on("nobody")
    docs = Workspace(load_settings()).stored(f"data_docs/verdicts/{NIGHT}.html")
    assert docs is not None and b"news" in docs
    monkeypatch.setenv("AIRFLOW_HOME", str(nobody.parent / "airflow"))
    from mmlora.airflow_plugin.alerts import alert

    told = alert("failed", "nightly_scoring", "a run", NIGHT)
    assert {each["domain"]: each["reason"] for each in told["domains"]} == dict.fromkeys(
        ["rare", "sport"], "not scored"
    )
    assert not nobody.exists(), "the page and the alerts need no home"

    on("b")
    old = Remote(s3_url).sweep(datetime.now(UTC) + timedelta(days=1), dry_run=True)
    freed = {row["kind"] for row in mmlora("gc", "--dry-run")["freed"]}
    assert old.versions > 5 and "shared versions" not in freed, "they are of today"


def objects(url: str) -> list[bytes]:
    filesystem, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    return [filesystem.cat_file(path) for path in filesystem.find(f"{root}/objects")]


def ids_of(content: bytes) -> set[object]:
    """Return the users of a Parquet file's rows; none of another file."""
    import io

    if content[:4] != b"PAR1":
        return set()
    table = pq.read_table(io.BytesIO(content))
    return {value for name in table.column_names if name == "user_id" for value in table[name].to_pylist()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAREHOUSE_URL", ""),
        ("WAREHOUSE_URL", "duckdb:///scores.duckdb"),
        ("MLFLOW_URL", "mlruns"),
        ("MLFLOW_URL", "sqlite:///mlflow.db"),
        ("FEAST_REGISTRY_URL", "sqlite+pysqlite:///registry.db"),
        ("SHARED_URL", "/mnt/shared"),
        ("SHARED_URL", "gs://bucket"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    servers = {
        "WAREHOUSE_URL": "postgresql://u@h/w",
        "MLFLOW_URL": "http://h",
        "FEAST_REGISTRY_URL": "postgresql://u@h/f",
    }
    for each, url in {**servers, "SHARED_URL": "s3://bucket", name: value}.items():
        monkeypatch.setenv(f"MMLORA_{each}", url)
    wrong = (
        "write it as s3://BUCKET" if name == "SHARED_URL" else rf"{name.lower()} must name a server \(MMLORA_"
    )
    done = CliRunner().invoke(app, ["status"])
    assert isinstance(done.exception, UsageError)
    assert done.exception.args and str(done.exception).startswith("settings: ")
    with pytest.raises(UsageError, match=f"with shared_url, {wrong}"):
        open_workspace()
    assert not (tmp_path / "var").exists()
