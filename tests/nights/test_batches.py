"""How a night's domains are divided among tasks."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from mmlora.nights.batches import batches
from mmlora.pipeline.score import score_and_publish
from mmlora.workspace import open_workspace

ON = date(2001, 4, 9)
DOMAINS = ["news", "rare", "sport"]


def test_small_domains_share_a_batch_and_a_large_one_is_alone(trained_workspace: Path) -> None:
    score_and_publish(ON)
    pairs = {}
    with open_workspace().open_warehouse() as warehouse:
        for name in DOMAINS:
            checks = warehouse.loads(domain=name, limit=1)[0].checks
            assert checks is not None and checks.pairs is not None
            pairs[name] = checks.pairs
    assert batches(ON, DOMAINS, budget=sum(pairs.values())) == [DOMAINS]
    assert batches(ON, DOMAINS, budget=pairs["news"] + pairs["rare"]) == [["news", "rare"], ["sport"]]
    assert batches(ON, DOMAINS, budget=pairs["news"] + pairs["rare"] - 1)[0] == ["news"]
    assert batches(ON, DOMAINS, budget=1) == [["news"], ["rare"], ["sport"]]


def test_a_domain_without_loads_counts_as_its_users_times_items(trained_workspace: Path) -> None:
    with open_workspace().open_warehouse() as warehouse:
        (news, rare, sport) = (
            verdict.users * verdict.items
            for verdict in sorted(warehouse.verdicts(ON), key=lambda verdict: str(verdict.domain_id))
        )
    assert news > rare > 0
    assert batches(ON, DOMAINS, budget=news + rare) == [["news", "rare"], ["sport"]]
    assert batches(ON, DOMAINS, budget=news + rare + sport) == [DOMAINS]
    assert batches(ON, DOMAINS) == [DOMAINS], "the setting allows twenty million pairs"


def test_some_domains_are_scored_and_the_others_left(trained_workspace: Path) -> None:
    night = score_and_publish(ON, domains=["rare", "news"])
    assert [(load.domain_id, load.state) for load in night.loads] == [
        ("rare", "published"),
        ("news", "published"),
    ]
    with open_workspace().open_warehouse() as warehouse:
        assert warehouse.publication("sport") is None
