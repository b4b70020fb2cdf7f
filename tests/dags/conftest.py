"""Airflow under pytest: a home of its own, set before anything imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from mmlora.resources import resource

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag


@pytest.fixture(scope="session", autouse=True)
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep Airflow, here and in processes started from here, out of the user's own ``~/airflow``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("airflow")))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        yield


@pytest.fixture(scope="session")
def dag_bag() -> DagBag:
    """Both DAGs, as Airflow parses them."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(resource("dags")))
