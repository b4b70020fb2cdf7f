"""The task that asks a person before a promotion: whom it asks, and what an answer means."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


@pytest.fixture
def approve(dag_bag):
    return dag_bag.dags["training"].get_task("approve")


def test_an_answer_names_who_agreed():
    from mmlora.airflow_plugin.promotion import KEEP, PROMOTE, answered

    eve = {"responded_by_user": {"id": "7", "name": "eve"}}
    assert answered(None) == (None, True)
    assert answered({**eve, "chosen_options": [PROMOTE]}) == ("eve", True)
    assert answered({**eve, "chosen_options": [KEEP]}) == ("eve", False)
    assert answered({"responded_by_user": None, "chosen_options": [KEEP]}) == ("unknown", False)


@pytest.mark.parametrize("question", [None, ("Promote v2?", "| domain |")])
def test_a_person_is_asked_only_if_there_is_a_question(approve, monkeypatch, question):
    from airflow.providers.standard.operators.hitl import HITLOperator

    from mmlora.airflow_plugin import promotion

    asked = []
    policy = SimpleNamespace(question=lambda version, as_of: question)
    monkeypatch.setattr(promotion, "module", lambda name: policy)
    monkeypatch.setattr(promotion, "run_date", lambda: None)
    monkeypatch.setattr(
        HITLOperator, "execute", lambda self, context: asked.append((self.subject, self.body))
    )
    type(approve).execute(approve, {})
    assert asked == ([question] if question else [])
