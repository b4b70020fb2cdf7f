"""The made-up world in which vectors are given and domains differ in how they match them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mmlora.data.synthetic import Dials, make_synthetic
from mmlora.errors import UsageError
from mmlora.metrics import auc, domain_metrics
from mmlora.pipeline.data import import_synthetic
from tests.benchmarks.quality_themes import ThemeRows

SMALL = Dials(domains=4, users=300, items=200, rows=20_000, days=10, vectors=6)
THEMES = Dials(domains=20, users=20_000, items=5_000, rows=450_000, days=30, vectors=32, seed=1)


def test_profiles_show_vectors_and_nothing_else_and_stay_when_domains_change() -> None:
    data = make_synthetic(SMALL)
    more = make_synthetic(dataclasses.replace(SMALL, domains=7, diversity=0.9))
    assert data.profiles["user"].column_names == ["user_id", "vector"]
    assert data.profiles["item"].column_names == ["item_id", "vector"]
    assert {len(vector) for vector in data.profiles["item"]["vector"].to_pylist()} == {6}
    assert all(data.profiles[entity].equals(more.profiles[entity]) for entity in data.profiles)


def test_diversity_is_the_share_that_is_a_domains_own() -> None:
    data = make_synthetic(dataclasses.replace(SMALL, domains=30, rows=60_000, diversity=0.3, sparsity=0.0))
    truth = data.truth.to_pandas()
    own = (truth["own"] - truth.groupby("domain_id")["own"].transform("mean")).var()
    assert own / (own + truth["shared"].var()) == pytest.approx(0.3, abs=0.1)


def test_domains_of_a_family_match_alike_and_others_do_not() -> None:
    data = make_synthetic(dataclasses.replace(SMALL, domains=3, families=2, users=5, items=4, diversity=1.0))
    frame = data.truth.to_pandas()
    by_pair = frame.groupby(["user_id", "item_id", "domain_id"])["own"].mean().unstack("domain_id").dropna()
    assert (by_pair["d0"] - by_pair["d2"]).std() < 1e-4
    assert (by_pair["d0"] - by_pair["d1"]).std() > 0.5


@pytest.mark.parametrize("vectors", [0, -1, 513])
def test_widths_out_of_range_are_refused(vectors: int) -> None:
    with pytest.raises(UsageError, match=f"vectors {vectors}: give a width of 1 to 512"):
        make_synthetic(Dials(vectors=vectors))


def test_the_import_tells_the_two_worlds_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    dials = {"domains": 2, "users": 50, "items": 40, "rows": 600, "days": 4}
    assert import_synthetic(**dials, vectors=8).interactions == 600
    with pytest.raises(UsageError, match="holds other data"):
        import_synthetic(**dials)


@pytest.mark.slow
def test_a_form_for_each_theme_is_worth_far_more_than_one_for_all() -> None:
    rows = ThemeRows.make(THEMES)
    label, domain = rows.label[rows.late], rows.domain[rows.late]
    scores = {
        "truth": rows.probability[rows.late],
        "a form a theme": rows.bilinear(by_theme=True),
        "one form": rows.bilinear(by_theme=False),
        "item CTR by theme": rows.item_ctr(),
    }
    assert rows.label.mean() == pytest.approx(0.36, abs=0.03)
    assert {name: domain_metrics(label, score, domain).wauc for name, score in scores.items()} == {
        "truth": pytest.approx(0.90, abs=0.01),
        "a form a theme": pytest.approx(0.85, abs=0.01),
        "one form": pytest.approx(0.76, abs=0.015),
        "item CTR by theme": pytest.approx(0.555, abs=0.02),
    }
    for theme in range(THEMES.domains):
        if (rows.domain == theme).sum() >= 5_000:
            own, shared = (scores[name][domain == theme] for name in ("a form a theme", "one form"))
            assert auc(label[domain == theme], own) > auc(label[domain == theme], shared)
