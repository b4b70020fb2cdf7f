"""``mmlora metrics``, as a scraper reads it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mmlora.errors import UsageError
from mmlora.pipeline.metrics import metrics
from mmlora.telemetry import figures
from mmlora.telemetry.figures import Metric
from mmlora.telemetry.prometheus import as_text, serve
from tests.telemetry.conftest import ON

MMLORA = [sys.executable, "-m", "mmlora_cli.main"]
DECLARED = {f"mmlora_{each.name}": each for each in vars(figures).values() if isinstance(each, Metric)}


def _samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of the text format by name and labels' values, in the declared order."""
    return {
        family.name: {
            tuple(sample.labels[label] for label in DECLARED[family.name].labels): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(text)
    }


def test_a_night_that_is_published_in_one_domain_and_rejected_in_another(mixed_night: Path) -> None:
    samples = _samples(as_text(metrics(home=mixed_night)))
    assert set(samples) == set(DECLARED), "every declared metric is there, and no other"
    midnight = {("news",): 986_774_400.0}
    assert samples["mmlora_night_timestamp_seconds"] == midnight
    assert samples["mmlora_night_stale"] == {("news",): 1}
    assert samples["mmlora_loads"] == {(str(ON), "published"): 1, (str(ON), "rejected"): 1}
    state = samples["mmlora_night_state"]
    assert [labels for labels, on in state.items() if on and labels[0] != "rare"] == [
        ("news", "stale"),
        ("sport", "blocked"),
    ]
    failed = [labels for labels, on in samples["mmlora_check_failed"].items() if on]
    assert ("sport", "near_constant", "block") in failed
    assert not [labels for labels in failed if labels[0] == "news" and labels[2] == "block"]


def test_names_follow_the_conventions() -> None:
    for name, metric in DECLARED.items():
        assert not metric.unit or name.endswith(f"_{metric.unit}")
        assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert metric.help.endswith(".")


def test_the_docs_have_each_metric_with_its_labels() -> None:
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `mmlora_")]
    told = {
        name: tuple(re.findall(r"`(\w+)`", labels))
        for names, labels in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert told == {name: metric.labels for name, metric in DECLARED.items()}


def test_labels_with_any_text_survive(tmp_path: Path) -> None:
    domain = 'a "quoted"\\ \n domain'
    text = as_text([figures.Figure(figures.ROWS, 3, (domain,))])
    assert _samples(text) == {"mmlora_night_rows": {(domain,): 3}}


def test_metrics_load_no_models_and_no_feature_store(mixed_night: Path) -> None:
    code = (
        "import sys\nfrom mmlora_cli.main import app\n"
        f"app(['metrics', '--home', {str(mixed_night)!r}], standalone_mode=False)\n"
        "print([name for name in ('torch', 'feast', 'mlflow', 'airflow', 'opentelemetry', 'openlineage')"
        " if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "mmlora_warehouse_up 1.0" in done.stdout


def test_a_textfile_is_replaced_as_a_whole(mixed_night: Path, tmp_path: Path) -> None:
    path = tmp_path / "mmlora.prom"
    path.write_text("an older one")
    before = path.open()
    subprocess.run([*MMLORA, "metrics", "--home", mixed_night, "--textfile", path], check=True)
    assert before.read() == "an older one", "who reads it meanwhile keeps the older one"
    before.close()
    assert "mmlora_night_rows" in _samples(path.read_text())
    assert list(tmp_path.iterdir()) == [path]
    bad = [*MMLORA, "metrics", "--home", mixed_night, "--textfile", tmp_path / "no" / "mmlora.prom"]
    done = subprocess.run(bad, capture_output=True, text=True, check=False)
    assert (done.returncode, "there is no folder" in done.stderr) == (2, True)


def test_the_warehouse_can_be_named_by_url_and_the_metrics_printed_as_json(mixed_night: Path) -> None:
    url = f"sqlite:///{mixed_night / 'warehouse.db'}"
    printed = subprocess.run([*MMLORA, "metrics", "--url", url, "--json"], capture_output=True, check=True)
    rows = json.loads(printed.stdout)
    assert {"name": "night_stale", "domain": "news", "value": 1.0} in rows
    assert not [row for row in rows if row["name"].startswith("workspace_")]


def test_a_server_computes_them_at_each_scrape_and_listens_on_this_machine_only(mixed_night: Path) -> None:
    command = [*MMLORA, "metrics", "--home", str(mixed_night), "--serve", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = server.stderr.readline()
        address = said.removeprefix("serving ").strip()
        assert address.startswith("http://127.0.0.1:")
        texts = [urllib.request.urlopen(address, timeout=60).read().decode() for _ in range(2)]
        taken = [*MMLORA, "metrics", "--serve", address.split(":")[-1].partition("/")[0]]
        second = subprocess.run(taken, capture_output=True, text=True, check=False)
        server.terminate()
    ages = [_samples(text)["mmlora_night_age_seconds"][("news",)] for text in texts]
    assert ages[0] < ages[1]
    assert second.returncode == 2
    assert "give another --serve PORT" in second.stderr


def test_a_server_says_that_the_warehouse_is_gone(tmp_path: Path) -> None:
    port, _ = serve(lambda: metrics(home=tmp_path), port=0, address="127.0.0.1")
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    assert _samples(text) == {"mmlora_warehouse_up": {(): 0}}
    with pytest.raises(UsageError):
        metrics(home=tmp_path)
