"""From a published row to what it goes back to, in one query, on each warehouse."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import mmlora
from mmlora.warehouse.models import ModelFacts
from tests.warehouse.conftest import AUDITED, Desk

FACTS = ModelFacts("v1", "b0", date(2000, 12, 30), "d0", "c0", "0.1.0", base="v0")
QUERY = """
    SELECT published.user_id, lineage.bundle_hash, lineage.model_as_of, lineage.data_fingerprint,
        lineage.contract_hash, lineage.model_code_version, lineage.model_base, lineage.code_version,
        lineage.content_hash, lineage.checks
    FROM scores_published AS published
    JOIN published_lineage AS lineage ON lineage.load_id = published.load_id
    WHERE published.domain_id = 'books' AND published.user_id = 1 AND published.position = 1
"""


def test_one_query_leads_from_a_row_to_everything_behind_it(desk: Desk) -> None:
    load = desk.publish(desk.rows(1))
    (unknown,) = desk.sql(QUERY)
    assert unknown[1:8] == (None, None, None, "c0", None, None, mmlora.__version__)
    for facts in ([FACTS], [], [FACTS]):  # again: the same
        desk.warehouse.record_models(facts)
    ((user, bundle, as_of, data, contract, trained_by, base, scored_by, content, checks),) = desk.sql(QUERY)
    assert (user, bundle, str(as_of), data, contract) == (1, "b0", "2000-12-30", "d0", "c0")
    assert (trained_by, base, scored_by) == ("0.1.0", "v0", mmlora.__version__)
    assert content == load.content_hash
    checks = json.loads(checks) if isinstance(checks, str) else checks
    assert checks == AUDITED.to_json()


def test_only_what_readers_have_has_a_lineage(desk: Desk) -> None:
    desk.warehouse.record_models([FACTS, replace(FACTS, model_version="v2")])
    desk.publish(desk.rows(1))
    newest = desk.publish(desk.rows(2))
    desk.publish(desk.rows(1), day=desk.day + timedelta(days=1))
    desk.warehouse.unpublish("books", desk.day + timedelta(days=1), who="me", why="a test")
    assert desk.sql("SELECT load_id FROM published_lineage") == [(newest.load_id,)]
