"""The alert rules, the dashboard and the services that docker/ has for them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mmlora.pipeline.metrics import metrics
from mmlora.telemetry.prometheus import as_text

DOCKER = Path(__file__).parents[2] / "docker"
FOLDER = DOCKER / "observability"
RULES = FOLDER / "alerts.yml"
UNITS = {"none", "short", "s", "percentunit", "bytes"}
"""Units of Grafana that the dashboard may use."""


def _rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "grafana" / "dashboard.json").read_text())
    return read


def _expressions() -> Iterator[Any]:
    for rule in _rules():
        yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in _dashboard()["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")


@pytest.fixture(scope="module")
def labels(mixed_night: Path) -> dict[str, set[str]]:
    """The labels of each metric that `mmlora metrics` prints of a real workspace."""
    families = text_string_to_metric_families(as_text(metrics(home=mixed_night)))
    return {family.name: {*family.samples[0].labels} for family in families}


@pytest.mark.parametrize("expression", [*_expressions()])
def test_expressions_parse_and_their_metrics_and_labels_exist(
    expression: str, labels: dict[str, set[str]]
) -> None:
    selectors: list[Any] = []

    def keep(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            selectors.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), keep)
    assert selectors
    for selector in selectors:
        assert selector.name in labels
        used = {matcher.name for matcher in selector.matchers.matchers}
        assert used <= labels[selector.name]


def test_what_alerts_say_of_a_series_is_a_label_of_it(labels: dict[str, set[str]]) -> None:
    for rule in _rules():
        assert {"severity"} == set(rule["labels"])
        assert set(rule["annotations"]) == {"summary", "description"}
        names = set(re.findall(r"mmlora_\w+", rule["expr"]))
        said = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert all(said <= labels[name] for name in names), rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed")
def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    subprocess.run(["promtool", "check", "rules", RULES], check=True)
    cases = Path(__file__).with_name("alert_cases.yml")
    shutil.copy(cases, tmp_path)
    shutil.copy(RULES, tmp_path)
    subprocess.run(["promtool", "test", "rules", cases.name], cwd=tmp_path, check=True)


def test_the_dashboard_has_what_grafana_needs() -> None:
    dashboard = _dashboard()
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["uid"] and dashboard["title"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["description"]
        assert panel["type"] in {"stat", "table", "timeseries", "bargauge"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not taken & cells, f"{panel['title']} overlaps another panel"
        assert place["x"] + place["w"] <= 24
        taken |= cells
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels)))
    assert used == variables


def test_the_services_find_their_files_and_each_other() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    services = compose["services"]
    profile = {name for name, service in services.items() if service.get("profiles") == ["observability"]}
    assert profile == {"metrics", "prometheus", "grafana"}
    for name, service in services.items():
        for other in service.get("depends_on", ()):
            assert other in services
            assert not {name} - profile or other not in profile, "the rest starts without the profile"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in compose["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")
    (scraped,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    host, _, port = scraped["static_configs"][0]["targets"][0].partition(":")
    assert port in services[host]["command"]
    provisioned = FOLDER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"].removeprefix("http://").partition(":")[0] in services
    (provider,) = yaml.safe_load((provisioned / "dashboards" / "mmlora.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"]]
    assert [path for path in mounted if path.startswith(provider["options"]["path"])]
