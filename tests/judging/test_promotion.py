"""The weighing of a challenger: what the intervals cover, and what the policy makes of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from mmlora.judging.promotion import ALL_DOMAINS, Evidence, HeldOut, rule, weigh
from mmlora.metrics import auc, differences

NAMES = ("a", "b", "c", "tiny")
SIZES = (2000, 2000, 2000, 40)


def held_out(seed: int = 0, names: tuple[str, ...] = NAMES, sizes: tuple[int, ...] = SIZES) -> HeldOut:
    draw = np.random.default_rng(seed)
    domain = np.repeat(np.arange(len(names)), sizes)
    return HeldOut(
        names=names,
        champions=dict.fromkeys(names, "v1"),
        excluded={},
        domain=domain,
        user=draw.integers(0, 300, len(domain)),
        label=(draw.random(len(domain)) < 0.3).astype(np.int8),
        first=datetime(2001, 1, 1, tzinfo=UTC),
        last=datetime(2001, 1, 9, tzinfo=UTC),
    )


def scores(rows: HeldOut, *strength: float, seed: int = 1) -> Any:
    """Scores that know the label, by domain the more the stronger."""
    noise = np.random.default_rng(seed).normal(0, 1, len(rows.label))
    return 1 / (1 + np.exp(-(np.asarray(strength)[rows.domain] * rows.label + noise)))


def weighed(rows: HeldOut, ours: Any, theirs: Any) -> Evidence:
    return weigh("v2", rows, (ours, theirs), margin=0.002, min_rows=500)


def standings(evidence: Evidence) -> list[str]:
    return [each.standing for each in (evidence.pooled, *evidence.domains)]


def test_each_domain_and_all_together_are_compared_on_the_same_rows() -> None:
    rows = held_out()
    ours, theirs = scores(rows, 1, 1, 1, 1), scores(rows, 0, 1, 2, 0)
    evidence = weighed(rows, ours, theirs)
    assert standings(evidence)[1:] == ["better", "level", "worse", "not compared"]
    assert evidence.domains[3].note == "fewer than 500 rows"
    first = evidence.domains[0]
    own = rows.domain == 0
    assert (first.rows, first.clicks) == (2000, int(rows.label[own].sum()))
    assert first.auc == pytest.approx(auc(rows.label[own], ours[own]))
    assert first.difference == pytest.approx(first.auc - (first.champion_auc or 0))
    assert Evidence.from_json(evidence.to_json()) == evidence


def test_a_domain_that_matters_blocks_the_whole_and_may_get_the_model_alone() -> None:
    rows = held_out()
    evidence = weighed(rows, scores(rows, 1, 1, 1, 1), scores(rows, 0, 1, 2, 0))
    whole, own = rule(evidence, by_domain=False), rule(evidence, by_domain=True)
    assert whole.promoted == () and "worse beyond the margin of 0.002 auc in c (" in whole.reason
    assert own.promoted == ("a",) and "better in a (" in own.reason and "but worse in c (" in own.reason


def test_better_somewhere_and_nowhere_worse_is_promoted_for_all() -> None:
    rows = held_out()
    evidence = weighed(rows, scores(rows, 1, 1, 1, 0), scores(rows, 0, 1, 1, 3))
    for by_domain in (False, True):
        ruling = rule(evidence, by_domain=by_domain)
        assert ruling.promoted == (ALL_DOMAINS,), "the tiny domain doesn't matter"
        assert "a (" in ruling.reason


def test_an_equal_model_stays_the_challenger() -> None:
    rows = held_out()
    same = scores(rows, 1, 1, 1, 1)
    ruling = rule(weighed(rows, same, same), by_domain=True)
    assert ruling.promoted == () and ruling.reason.startswith(
        "it is better nowhere beyond noise: all domains ("
    )


def test_chance_alone_seldom_decides_among_many_domains() -> None:
    """Of equal models in 12 domains, about 5% of comparisons find anything; by plain intervals half would."""
    names, found, plain = tuple(f"d{n}" for n in range(12)), 0, 0
    for seed in range(25):
        rows = held_out(seed, names, (120,) * 12)
        strength = [1.0] * 12
        ours, theirs = (scores(rows, *strength, seed=1000 * n + seed) for n in (1, 2))
        evidence = weigh("v2", rows, (ours, theirs), margin=0.0, min_rows=100)
        found += bool(evidence.of("better", "worse"))
        errors = differences(rows.label, ours, theirs, rows.domain, rows.user, draws=100)[1].values()
        plain += any(abs(each.value or 0) > 1.96 * (each.error or 1) for each in errors)
    assert found <= 4 and plain >= 6


def test_the_margin_tolerates_a_small_loss() -> None:
    rows = held_out()
    ours, theirs = scores(rows, 1, 1, 0.8, 0), scores(rows, 0, 1, 1.8, 0)
    strict = weigh("v2", rows, (ours, theirs), margin=0.002, min_rows=500)
    lenient = weigh("v2", rows, (ours, theirs), margin=0.3, min_rows=500)
    assert (strict.domains[2].standing, lenient.domains[2].standing) == ("worse", "level")


def test_without_rows_that_neither_has_seen_nothing_is_decided() -> None:
    rows = held_out(sizes=(10, 10, 10, 10))
    assert not rows.enough(500)
    evidence = weigh("v2", rows, None, margin=0.002, min_rows=500)
    assert set(standings(evidence)) == {"not compared"}
    assert rule(evidence, by_domain=True).reason == (
        "it was not compared with the champion: only 40 rows that neither has seen (min_rows = 500)"
    )


def test_a_domain_whose_champion_cannot_be_compared_is_left_out() -> None:
    rows = replace(held_out(), excluded={"c": "its features are gone"})
    evidence = weighed(rows, scores(rows, 1, 1, 1, 1), scores(rows, 0, 1, 9, 0))
    assert evidence.pooled.standing == "better" and evidence.pooled.rows == 4040
    assert evidence.domains[2].note == "its features are gone"
    assert rule(evidence, by_domain=False).promoted == (ALL_DOMAINS,)


def test_rows_of_a_user_that_agree_widen_the_interval() -> None:
    rows = held_out(names=("a",), sizes=(2000,))
    ours, theirs = scores(rows, 1), scores(rows, 0.9, seed=2)
    times = 8  # each row eight times, as rows of the same user
    copied = {name: np.repeat(getattr(rows, name), times) for name in ("label", "domain", "user")}
    again = differences(
        copied["label"], np.repeat(ours, times), np.repeat(theirs, times), copied["domain"], copied["user"]
    )[1][0]
    once = differences(rows.label, ours, theirs, rows.domain, rows.user)[1][0]
    assert again.value == pytest.approx(once.value) and again.error == pytest.approx(once.error, rel=0.05)
