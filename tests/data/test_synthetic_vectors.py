"""The made-up world in which vectors are given and domains differ in how they match them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mmlora.data.synthetic import Dials, best_reachable, make_synthetic
from mmlora.errors import UsageError
from mmlora.metrics import auc, domain_metrics
from mmlora.pipeline.importing import import_synthetic
from tests.benchmarks.bilinear import bilinear_scores

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
    assert import_synthetic(**dials, vectors=8)["interactions"] == 600
    with pytest.raises(UsageError, match="holds other data"):
        import_synthetic(**dials)


@pytest.mark.slow
def test_a_form_for_each_theme_is_worth_far_more_than_one_for_all() -> None:
    data = make_synthetic(THEMES)
    rows = data.interactions.to_pandas()
    domain = rows["domain_id"].astype("category").cat.codes.to_numpy(np.int64)
    label = rows["label"].to_numpy()
    late = np.arange(len(rows)) >= len(rows) * 29 // 30
    item_ctr = _item_ctr(rows["item_id"].to_numpy(), domain, label, ~late)
    user, item = (
        np.stack(data.profiles[entity]["vector"].to_numpy())[rows[f"{entity}_id"].to_numpy() - 1]
        for entity in ("user", "item")
    )
    own = bilinear_scores(user, item, domain, label, late)
    shared = bilinear_scores(user, item, 0 * domain, label, late)

    def wauc(score: npt.NDArray[np.float64]) -> float | None:
        return domain_metrics(label[late], score, domain[late]).wauc

    found = {
        "ctr": label.mean(),
        "truth": wauc(data.truth["probability"].to_numpy()[late]),
        "a form a theme": wauc(own),
        "one form": wauc(shared),
        "item CTR by theme": wauc(item_ctr[late]),
    }
    assert found == {
        "ctr": pytest.approx(0.36, abs=0.03),
        "truth": pytest.approx(0.90, abs=0.01),
        "a form a theme": pytest.approx(0.85, abs=0.01),
        "one form": pytest.approx(0.76, abs=0.015),
        "item CTR by theme": pytest.approx(0.555, abs=0.02),
    }
    assert found["truth"] == pytest.approx(best_reachable(data)["wauc"], abs=0.01)
    for theme in range(20):
        these = domain[late] == theme
        if (domain == theme).sum() >= 5_000:
            here = label[late][these]
            assert auc(here, own[these]) > auc(here, shared[these])


def _item_ctr(
    item: npt.NDArray[np.int64],
    domain: npt.NDArray[np.int64],
    label: npt.NDArray[np.int8],
    early: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """Return each row's item's click rate in its domain, from the early rows, drawn to the domain's own."""
    key = domain * (item.max() + 1) + item
    shown, clicks = (np.bincount(key[early], weights, key.max() + 1) for weights in (None, label[early]))
    base = np.bincount(domain[early], label[early]) / np.bincount(domain[early])
    return np.asarray((clicks[key] + 20 * base[domain]) / (shown[key] + 20))
