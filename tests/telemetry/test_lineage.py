"""Events of OpenLineage, by its file transport, of commands and of a DAG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.transport import Transport

from mmlora.telemetry import work, working
from mmlora.telemetry.lineage import OpenLineage
from tests.telemetry.conftest import ON

MMLORA = [sys.executable, "-m", "mmlora_cli.main"]
Event = dict[str, Any]


def _to(file: Path, **others: str) -> dict[str, str]:
    transport = {"TYPE": "file", "LOG_FILE_PATH": str(file), "APPEND": "true"}
    named = {f"OPENLINEAGE__TRANSPORT__{name}": value for name, value in transport.items()}
    return {**os.environ, **named, **others}


def _run(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*MMLORA, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _events(file: Path) -> list[Event]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _of(events: list[Event], job: str, kind: str) -> Event:
    (event,) = (event for event in events if (event["job"]["name"], event["eventType"]) == (job, kind))
    return event


def _names(datasets: list[Event]) -> set[str]:
    return {dataset["name"] for dataset in datasets}


def test_a_night_leads_from_sources_and_views_to_the_table_of_scores(
    trained_workspace: Path, tmp_path: Path
) -> None:
    parent = "of/airflow/nightly.score/0198aaaa-0000-7000-8000-000000000000"
    environment = _to(tmp_path / "events", OPENLINEAGE_PARENT_ID=parent)
    done = _run("score", "--date", str(ON), "--domain", "news", environment=environment)
    assert done.returncode == 0, done.stderr
    events = _events(tmp_path / "events")
    assert [(event["job"]["name"], event["eventType"]) for event in events] == [
        ("night", "START"),
        ("score", "START"),
        ("score", "COMPLETE"),
        ("publish", "START"),
        ("publish", "COMPLETE"),
        ("night", "COMPLETE"),
    ]
    night, score, publish = (_of(events, job, "COMPLETE") for job in ("night", "score", "publish"))
    of_all = night["run"]["facets"]["parent"]["job"]
    assert (of_all["namespace"], of_all["name"]) == ("of/airflow", "nightly.score")
    assert score["run"]["facets"]["parent"]["run"]["runId"] == night["run"]["runId"]
    assert str(trained_workspace / "offline" / "interactions") in _names(score["inputs"])
    assert _names(score["outputs"]) == _names(publish["inputs"]) == {str(trained_workspace / "staging")}
    (table,) = publish["outputs"]
    assert table["name"] == f"{trained_workspace.resolve()}/warehouse.db/scores"
    (part,) = table["outputFacets"]["subset"]["outputCondition"]["partitions"]
    assert part["dimensions"] == {"domain_id": "news", "score_date": "2001-04-09"}
    about = publish["run"]["facets"]["mmlora"]
    assert (about["domain"], about["date"]) == ("news", "2001-04-09")
    assert about["load"].startswith("2001-04-09-1-")
    assert about["model_version"].startswith("20010408-")
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == about["rows"] > 0
    assert publish["run"]["facets"]["nominalTime"]["nominalStartTime"] == "2001-04-09T00:00:00+00:00"


def test_a_rejected_load_fails_with_its_reason(trained_workspace: Path, tmp_path: Path) -> None:
    rules = '{"near_constant": {"threshold": 100}}'
    environment = _to(tmp_path / "events", MMLORA_CHECKS__RULES=rules)
    assert _run("score", "--date", str(ON), "--domain", "news", environment=environment).returncode == 1
    events = _events(tmp_path / "events")
    failed = _of(events, "score", "FAIL")
    assert "near_constant" in failed["run"]["facets"]["errorMessage"]["message"]
    assert "Traceback" in failed["run"]["facets"]["errorMessage"]["stackTrace"]
    assert failed["run"]["runId"] == _of(events, "score", "START")["run"]["runId"]
    assert not [event for event in events if event["job"]["name"] == "publish"]


@pytest.mark.slow
def test_building_validating_and_training_name_what_they_read_and_write(
    made_up_workspace: Path, tmp_path: Path
) -> None:
    (tmp_path / "openlineage.yml").write_text(
        f"transport: {{type: file, log_file_path: {tmp_path / 'events'}, append: true}}"
    )
    environment = dict(os.environ)
    for command in (
        ("features", "build", "--through", "2001-04-14"),
        ("validate", "--as-of", "2001-04-08"),
        ("train", "--as-of", "2001-04-08", "--features", "all", "--adaptation", "none"),
    ):
        done = _run(*command, environment=environment)
        assert done.returncode == 0, done.stderr
    events = _events(tmp_path / "events")
    interactions = str(made_up_workspace / "offline" / "interactions")
    built = _of(events, "build_features", "COMPLETE")
    assert {"user_activity", "item_activity"} <= _names(built["outputs"])
    assert interactions in _names(_of(events, "validate", "COMPLETE")["inputs"])
    prepared, train = _of(events, "prepare", "COMPLETE"), _of(events, "train", "COMPLETE")
    assert {interactions, "user_activity"} <= _names(prepared["inputs"])
    assert _names(_of(events, "register", "COMPLETE")["outputs"]) == {str(made_up_workspace / "registry")}
    assert train["run"]["facets"]["mmlora"]["model_version"].startswith("20010408-")
    parts = {event["job"]["name"] for event in events if "parent" in event["run"]["facets"]}
    assert {"prepare", "train_crosses", "train_backbone", "register"} <= parts


def test_applying_the_definitions_names_what_the_views_are_made_of(
    made_up_workspace: Path, tmp_path: Path
) -> None:
    code = "from mmlora.workspace import open_workspace; open_workspace().feature_repo.apply()"
    subprocess.run([sys.executable, "-c", code], env=_to(tmp_path / "events"), check=True)
    service = _of(_events(tmp_path / "events"), "feature_service_mmlora_all", "COMPLETE")
    of_views = {(view["namespace"], view["name"]) for view in service["inputs"]}
    assert {("mmlora", "user_activity"), ("mmlora", "item_profile")} <= of_views, "named as in our events"


@pytest.mark.parametrize(
    ("before", "transport", "said"),
    [
        ("", "nonsense", "no lineage: "),
        ("sys.modules['openlineage'] = None", "file", "pip install 'mmlora[lineage]'"),
    ],
)
def test_a_wrong_configuration_or_a_missing_library_stops_nothing(
    before: str, transport: str, said: str
) -> None:
    code = f"import sys\n{before}\nfrom mmlora.telemetry import work\nwith work('night'): print('done')"
    environment = {**os.environ, "OPENLINEAGE__TRANSPORT__TYPE": transport}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"
    assert done.stderr.count(said) == 1, done.stderr


def test_a_receiver_that_is_gone_is_tried_once_and_not_for_each_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(Transport):
        kind = "gone"
        tried = 0

        def emit(self, event: Any) -> Any:
            self.tried += 1
            raise ConnectionError("refused: http://me:sesame-open@lineage")

    gone = Gone()
    observer = OpenLineage(OpenLineageClient(transport=gone))
    monkeypatch.setattr(working, "observers", lambda: (observer,))
    done = []
    with work("night", date=ON):
        for domain in ("news", "sport"):
            with work("score", domain=domain):
                done.append(domain)
    assert (done, gone.tried) == (["news", "sport"], 1)
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning == "telemetry: refused: http://me:***@lineage; the work goes on"


@pytest.mark.slow
def test_the_work_of_airflows_tasks_is_part_of_them(trained_workspace: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("run_night.py")
    command = [sys.executable, str(script), str(tmp_path / "airflow"), str(ON), "news"]
    done = subprocess.run(command, env=_to(tmp_path / "events"), capture_output=True, text=True, check=False)
    assert "score success" in done.stdout, done.stdout + done.stderr
    events = _events(tmp_path / "events")
    tasks = {"build_features": "build_features", "validate": "validate", "night": "score"}
    for job, task in tasks.items():
        parent = _of(events, job, "COMPLETE")["run"]["facets"]["parent"]
        assert parent["job"]["name"] == f"nightly_scoring.{task}"
        assert parent["root"]["job"]["name"] == "nightly_scoring"
    published = _of(events, "publish", "COMPLETE")["run"]["facets"]
    assert published["parent"]["job"]["name"] == "night"
    assert published["mmlora"]["domain"] == "news"
