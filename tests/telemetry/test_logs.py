"""Log lines say what they are about: in JSON, from any thread, and in Airflow's task logs."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mmlora.nights.heartbeat import heartbeat
from mmlora.pipeline.score import score_and_publish
from mmlora.redaction import remember
from mmlora.telemetry import in_context, note, work
from mmlora.telemetry.logs import JsonFormatter
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
logger = logging.getLogger("mmlora.somewhere.deep")


class Lines(list[dict[str, Any]]):
    """The JSON lines that were logged, as objects; each text must be one line."""

    def write(self, text: str) -> None:
        assert text.count("\n") == 1, text
        self.append(json.loads(text))


@pytest.fixture
def lines() -> Iterator[Lines]:
    written = Lines()
    handler = logging.StreamHandler(written)  # type: ignore[arg-type]
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def _about(line: dict[str, Any]) -> tuple[str | None, ...]:
    return tuple(line.get(name) for name in ("domain", "date", "load"))


def test_a_line_is_about_the_innermost_work_and_what_became_known_of_it(lines: Lines) -> None:
    logger.warning("before")
    with work("night", date=ON):
        logger.warning("the night")
        with work("score", domain=7):
            logger.warning("no load yet")
            note(load="a-load")
            logger.warning("a load")
        logger.warning("the night again")
    note(load="nobody's")
    logger.warning("after")
    assert [_about(line) for line in lines] == [
        (None, None, None),
        (None, "2001-04-09", None),
        ("7", "2001-04-09", None),
        ("7", "2001-04-09", "a-load"),
        (None, "2001-04-09", None),
        (None, None, None),
    ]


def test_threads_that_are_given_the_context_log_what_they_work_on(lines: Lines) -> None:
    with work("score", domain="news", date=ON):
        note(load="a-load")
        with ThreadPoolExecutor(4) as pool:
            together = threading.Barrier(4, timeout=60)

            def log(number: int) -> None:
                together.wait()  # in the same context, at the same time
                logger.warning("thread %d", number)

            list(pool.map(in_context(log), range(4)))
        pool_without = ThreadPoolExecutor(1)
        pool_without.submit(logger.warning, "not told").result()
        pool_without.shutdown()
    assert {_about(line) for line in lines[:4]} == {("news", "2001-04-09", "a-load")}
    assert _about(lines[4]) == (None, None, None)


def test_a_json_line_has_extras_and_the_traceback_and_hides_secrets(lines: Lines) -> None:
    remember("postgresql://me:sesame-open@db/scores")
    try:
        raise ValueError("no sesame-open")
    except ValueError:
        logger.exception(
            "failed with %s\nin two lines", "sesame-open", extra={"url": "x sesame-open", "n": 3}
        )
    (line,) = lines
    assert line["message"] == "failed with ***\nin two lines"
    assert (line["level"], line["logger"], line["url"], line["n"]) == ("error", logger.name, "x ***", 3)
    assert line["exception"].splitlines()[-1] == "ValueError: no ***"
    assert line["timestamp"].endswith("+00:00")


def test_all_lines_of_a_load_name_it(trained_workspace: Path, lines: Lines) -> None:
    night = score_and_publish(ON, domain="news")
    said = [line for line in lines if line["message"].startswith("scored news")]
    assert [_about(line) for line in said] == [("news", "2001-04-09", night.loads[0].load_id)]
    assert {line.get("domain") for line in lines if line.get("load")} == {"news"}


def test_a_heartbeat_that_fails_is_logged_with_its_load(trained_workspace: Path, lines: Lines) -> None:
    with open_workspace().open_warehouse() as warehouse, work("score", domain="news", date=ON):
        load = warehouse.begin_load("news", ON, model_version="m", contract_hash="c")
        note(load=load.load_id)
        warehouse.fail(load, "given up by another process")
        with heartbeat(warehouse, load, 0.01):
            while not lines:
                time.sleep(0.01)
    assert "can't send a heartbeat" in lines[0]["message"]
    assert _about(lines[0]) == ("news", "2001-04-09", load.load_id)


def test_structlog_gets_the_same_fields_for_its_own_lines_and_those_of_plain_loggers() -> None:
    """As Airflow sets it up for its tasks."""
    code = """
import logging, sys
from datetime import date
from airflow.sdk._shared.logging.structlog import configure_logging
import structlog
configure_logging(json_output=True, log_level="INFO", output=sys.stdout.buffer)
from mmlora.telemetry import note, work
structlog.contextvars.bind_contextvars(task_id="score", domain="of the task")
with work("score", domain="news", date=date(2001, 4, 9)):
    note(load="a-load")
    logging.getLogger("mmlora.deep").warning("plain")
    structlog.get_logger("own").warning("own")
logging.getLogger("mmlora.deep").warning("after")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, own, after = (json.loads(line) for line in done.stdout.splitlines())
    for line in (plain, own):
        assert _about(line) == ("news", "2001-04-09", "a-load"), line
    assert (after["domain"], after["task_id"], after.get("load")) == ("of the task", "score", None)


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_command_line_writes_its_lines_in_the_format_of_the_settings(
    trained_workspace: Path, form: str
) -> None:
    mmlora = [sys.executable, "-m", "mmlora_cli.main"]
    (trained_workspace.parent / "mmlora.toml").write_text(f'[logging]\nformat = "{form}"\nlevel = "info"\n')
    scored = [*mmlora, "score", "--date", "2001-04-09", "--domain", "news"]
    done = subprocess.run(scored, capture_output=True, text=True, check=True)
    refused = subprocess.run(
        [*mmlora, "score", "--date", "2001-04-09", "--domain", "no"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pairs scored and published" in done.stdout
    if form == "text":
        assert "INFO mmlora.nights.load_job: scored news, 2001-04-09: " in done.stderr
        assert refused.stderr.splitlines()[-1].startswith("mmlora: there is no domain 'no'")
        return
    lines = [json.loads(line) for line in io.StringIO(done.stderr + refused.stderr)]
    load = next(line for line in lines if line["message"].startswith("scored news"))
    assert _about(load)[:2] == ("news", "2001-04-09")
    assert load["load"].startswith("2001-04-09-1-")
    assert lines[-1]["level"] == "error"
    assert lines[-1]["message"].startswith("mmlora: there is no domain 'no'")
