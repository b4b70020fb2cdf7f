"""The files of a deployment agree with the image, the settings and the DAGs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mmlora.settings import Settings

DOCKER = Path(__file__).parents[2] / "docker"
IMAGE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
VALUES = yaml.safe_load((DOCKER / "helm-values.yaml").read_text(encoding="utf-8"))
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))

CHART = {
    *("executor", "airflowVersion", "defaultAirflowRepository", "defaultAirflowTag", "postgresql", "redis"),
    *("createUserJob", "data", "fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName", "secret"),
    *("env", "volumes", "volumeMounts", "uid", "gid", "securityContexts", "scheduler", "dagProcessor"),
    *("apiServer", "workers", "airflowLocalSettings"),
}
"""The parameters of chart 1.22 that the example uses; each was looked up in its reference or its values."""


def test_the_values_use_parameters_of_the_chart_only() -> None:
    assert VALUES.keys() == CHART
    assert VALUES["workers"].keys() == {"kubernetes"}, "workers.resources is deprecated"
    assert VALUES["data"].keys() == {"metadataSecretName"}


def test_what_is_mounted_is_a_volume() -> None:
    volumes = {volume["name"] for volume in VALUES["volumes"]}
    assert {mount["name"] for mount in VALUES["volumeMounts"]} == volumes
    paths = {mount["mountPath"] for mount in VALUES["volumeMounts"]}
    environment = {variable["name"]: variable["value"] for variable in VALUES["env"]}
    assert {environment["MMLORA_HOME"], environment["MMLORA_SECRETS_DIR"]} == paths


def test_user_and_dags_are_those_of_the_image() -> None:
    (uid,) = re.findall(r"useradd .*--uid (\d+)", IMAGE)
    assert VALUES["securityContexts"]["pod"]["runAsUser"] == VALUES["uid"] == int(uid)
    assert "WORKDIR /opt/mmlora\n" in IMAGE and "COPY dags dags" in IMAGE
    folders = {variable["name"]: variable["value"] for variable in VALUES["env"]}
    assert folders["AIRFLOW__CORE__DAGS_FOLDER"] == "/opt/mmlora/dags"
    assert f"airflow=={VALUES['airflowVersion']}" in (DOCKER.parent / "pyproject.toml").read_text("utf-8")


def test_every_variable_of_ours_is_a_setting() -> None:
    variables = [variable["name"] for variable in VALUES["env"]]
    for service in COMPOSE["services"].values():
        variables += service.get("environment", {})
    ours = {name for name in variables if name.startswith("MMLORA_")}
    known = {f"MMLORA_{name.upper()}" for name in Settings.model_fields} | {"MMLORA_SECRETS_DIR"}
    assert len(ours) >= 4
    assert ours <= known


SIZES_OF_PODS = """
import json, sys, uuid
from airflow.dag_processing.dagbag import DagBag
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from mmlora.resources import resource

sizes = {}
for dag in DagBag(str(resource("dags"))).dags.values():
    for task in DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).tasks:
        made = TaskInstance(task, dag_version_id=uuid.uuid4(), run_id="a run", map_index=-1)
        pod = made.executor_config.get("pod_override")
        resources = pod and pod.spec.containers[0].resources
        sizes[f"{task.dag_id}.{task.task_id}"] = resources and [resources.requests, resources.limits]
print(json.dumps(sizes))
"""


def test_every_task_that_does_heavy_work_has_a_size_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/airflow_local_settings.py").write_text(
        VALUES["airflowLocalSettings"], encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-c", SIZES_OF_PODS],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(DOCKER.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = json.loads(done.stdout.splitlines()[-1])
    assert {name for name, size in sizes.items() if size is None and name.split(".")[1] not in LIGHT} == set()
    defined: dict = {}
    exec(VALUES["airflowLocalSettings"], defined)
    assert {f"{dag}.{task}" for dag, tasks in defined["SIZES"].items() for task in tasks} == {
        name for name, size in sizes.items() if size
    }
    assert sizes["training.train_backbone"] == [{"cpu": "2", "memory": "4Gi"}, {"memory": "8Gi"}]


LIGHT = {
    *("batches", "outcomes", "announce", "all_published", "all_succeeded", "domains", "expert_domains"),
    *("approve",),
}
"""Tasks that import nothing heavy, or are over at once."""


@pytest.mark.parametrize("service", ["postgres", "mlflow", "api-server"])
def test_services_that_others_wait_for_have_a_health_check(service: str) -> None:
    assert COMPOSE["services"][service]["healthcheck"]["test"]
