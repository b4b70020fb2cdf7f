"""The DAG `promotion`: it decides as the command line does, in the name of who triggered it."""

from __future__ import annotations

import pytest

from mmlora.airflow_plugin.promotion import decide_by_hand
from mmlora.errors import UsageError
from mmlora.workspace import open_workspace


def test_a_promotion_is_decided_by_who_triggered_the_run(trained_workspace, trained):
    options = {
        "model_version": trained[1],
        "domain": "news",
        "why": "it reads well",
        "accept_below_baseline": True,
    }
    outcome = decide_by_hand("promote", who="eve", **options)
    assert (outcome["model_version"], outcome["domain"]) == (trained[1], "news")
    with open_workspace().open_warehouse() as warehouse:
        (newest,) = warehouse.promotions("champion", "news", limit=1)
    assert (newest.who, newest.why.partition(" (")[0], newest.domain_id) == ("eve", "it reads well", "news")
    with pytest.raises(UsageError, match="no earlier champion of all domains"):
        decide_by_hand("rollback", who="eve", accept_worse=True)


def test_the_form_needs_a_version_to_promote_and_takes_none_to_roll_back():
    with pytest.raises(UsageError, match="Fill in the field Model version"):
        decide_by_hand("promote", who="eve")
    with pytest.raises(UsageError, match="leave the field Model version empty"):
        decide_by_hand("rollback", who="eve", model_version="v1")
