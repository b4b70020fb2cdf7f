"""Airflow under pytest: a home of its own, set before anything imports it."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from mmlora.resources import resource

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    """Both DAGs, as Airflow parses them."""
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="mmlora-airflow-")
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(resource("dags")))
