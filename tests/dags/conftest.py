"""Airflow under pytest: a home of its own, set before anything imports it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from mmlora.resources import resource

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep Airflow, here and in processes started from here, out of the user's own ``~/airflow``."""
    os.environ["AIRFLOW_HOME"] = str(tmp_path_factory.mktemp("airflow"))
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    """Both DAGs, as Airflow parses them."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(resource("dags")))
