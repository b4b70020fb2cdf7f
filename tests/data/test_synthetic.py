from __future__ import annotations

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mmlora.data.store import OfflineStore
from mmlora.data.synthetic import Dials, SyntheticData, best_reachable, domain_rows, make_synthetic
from mmlora.errors import UsageError
from mmlora.metrics import auc
from mmlora.pipeline.data import import_synthetic
from mmlora_cli.main import app

SMALL = Dials(domains=4, users=200, items=100, rows=20_000, days=10)
KEY = ["user_id", "item_id", "domain_id", "event_timestamp"]


def _with(**changes: object) -> SyntheticData:
    return make_synthetic(dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    first, again, other = _with(), _with(), _with(seed=1)
    assert first.interactions.equals(again.interactions)
    assert first.truth.equals(again.truth)
    assert all(first.profiles[entity].equals(again.profiles[entity]) for entity in first.profiles)
    assert not first.interactions.equals(other.interactions)


def test_labels_follow_the_true_probability() -> None:
    data = _with()
    label = data.interactions["label"].to_numpy()
    p = data.truth["probability"].to_numpy()
    assert data.truth.select(KEY).equals(data.interactions.select(KEY))
    error = np.sqrt((p * (1 - p)).mean() / len(p))
    assert abs(label.mean() - p.mean()) < 4 * error
    tenths = np.array_split(np.argsort(p), 10)
    assert all(abs(label[rows].mean() - p[rows].mean()) < 0.05 for rows in tenths)
    logit = data.truth["shared"].to_numpy().astype(float) + data.truth["own"].to_numpy()
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logit)), rtol=1e-6)


@pytest.mark.parametrize("diversity", [0.0, 0.3, 1.0])
def test_diversity_is_the_share_of_the_variance_that_is_a_domains_own(diversity: float) -> None:
    truth = _with(domains=30, rows=60_000, diversity=diversity, sparsity=0.0).truth.to_pandas()
    own = (truth["own"] - truth.groupby("domain_id")["own"].transform("mean")).var()
    shared = truth["shared"].var()
    assert own / (own + shared) == pytest.approx(diversity, abs=0.1)


def test_without_diversity_domains_are_alike_and_with_all_of_it_the_shared_part_says_nothing() -> None:
    alike, apart = best_reachable(_with(diversity=0.0)), best_reachable(_with(diversity=1.0))
    assert alike.wauc == pytest.approx(alike.shared_wauc)
    assert alike.wauc > 0.75
    assert apart.wauc > 0.75
    assert apart.shared_wauc == 0.5


def test_the_best_auc_is_that_of_the_true_probability_and_no_other_score_beats_it() -> None:
    data = _with()
    best = best_reachable(data)
    rows = data.interactions["domain_id"].to_numpy(zero_copy_only=False) == "d2"
    label, p = data.interactions["label"].to_numpy()[rows], data.truth["probability"].to_numpy()[rows]
    assert best.by_domain["d2"].auc == pytest.approx(auc(label, p))
    assert best.by_domain["d2"].rows == rows.sum()
    noisy = p + np.random.default_rng(0).normal(0, 0.2, len(p))
    assert auc(label, noisy) < best.by_domain["d2"].auc
    assert all(found.shared_auc < found.auc for found in best.by_domain.values())


def test_sparsity_sets_how_unequal_the_sizes_are() -> None:
    def sizes(sparsity: float) -> list[int]:
        return list(domain_rows(dataclasses.replace(SMALL, domains=5, rows=100_001, sparsity=sparsity)))

    assert max(sizes(0.0)) - min(sizes(0.0)) <= 1
    steep = sizes(1.0)
    assert sum(steep) == 100_001
    assert steep == sorted(steep, reverse=True)
    assert steep[0] / steep[-1] == pytest.approx(1000, rel=0.02)
    assert min(domain_rows(Dials(domains=50, rows=50, sparsity=1.0))) == 1


def test_rows_cover_the_days_and_no_two_are_of_one_moment() -> None:
    times = _with(days=3).interactions["event_timestamp"]
    assert {moment.date() for moment in times.to_pylist()} == {date(2020, 1, day) for day in (1, 2, 3)}
    assert (np.diff(times.to_numpy()).astype(np.int64) > 0).all()


def test_profiles_say_something_about_clicks_and_stay_when_domains_change() -> None:
    data, more = _with(diversity=0.0), _with(domains=9, diversity=0.8)
    assert all(data.profiles[entity].equals(more.profiles[entity]) for entity in data.profiles)
    price = data.profiles["item"]["price"].to_numpy()[data.interactions["item_id"].to_numpy() - 1]
    assert auc(data.interactions["label"].to_numpy(), price) > 0.55
    frame = data.interactions.to_pandas().merge(data.profiles["user"].to_pandas(), on="user_id")
    frame = frame.merge(data.profiles["item"].to_pandas(), on="item_id")
    by_cell = frame.groupby(["segment", "category"])["label"].transform("mean")
    assert auc(frame["label"].to_numpy(), by_cell.to_numpy()) > 0.6


@pytest.mark.parametrize("dials", [Dials(1, 1, 1, 1, 1), Dials(3, 1, 1, 3, 1, 1.0, 1.0)])
def test_the_smallest_worlds_work(dials: Dials) -> None:
    data = make_synthetic(dials)
    assert data.interactions.num_rows == dials.rows
    assert best_reachable(data).wauc is None


def test_dials_out_of_range_are_refused_all_at_once() -> None:
    with pytest.raises(UsageError, match=r"users 0.*diversity 1\.5.*sparsity nan.*days 0.*seed -1.*rows 1"):
        make_synthetic(Dials(2, 0, 1, 1, 0, 1.5, float("nan"), None, -1))


def test_the_import_keeps_the_truth_and_refuses_to_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    dials = {"domains": 2, "users": 50, "items": 40, "rows": 600, "days": 4}
    report = import_synthetic(**dials)
    assert report.interactions == 600
    assert report.domains == 2
    truth = pq.read_table(report.truth)
    assert truth.column_names == [*KEY, "probability", "shared", "own"]
    assert OfflineStore(tmp_path / "var" / "offline").domains() == ["d0", "d1"]
    assert import_synthetic(**dials).unchanged == 600
    with pytest.raises(UsageError, match="holds other data"):
        import_synthetic(**dials, seed=1)
    assert pq.read_table(report.truth).equals(truth)


def test_the_verb_prints_the_best_reachable_auc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_HOME", str(tmp_path / "var"))
    arguments = ["data", "synthetic", "--domains", "3", "--users", "50", "--items", "40", "--rows", "900"]
    shown = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert "best reachable auc" in shown
    assert "all (wauc)" in shown
    report = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert f"{report['best']['wauc']:.4f}" in shown


def test_domains_of_a_family_have_the_same_own_part() -> None:
    truth = make_synthetic(Dials(domains=4, families=2, users=5, items=4, rows=4000, diversity=1.0)).truth
    own: dict[tuple[Any, ...], set[float]] = {}
    domains, users, items = (truth[name].to_pylist() for name in ("domain_id", "user_id", "item_id"))
    for domain, user, item, value in zip(domains, users, items, truth["own"].to_pylist(), strict=True):
        own.setdefault((int(domain[1:]), user, item), set()).add(round(value, 4))
    # A domain's level stays its own: only differences between its rows are the family's.
    shifts = {
        round(min(own[2, user, item]) - min(own[0, user, item]), 3)
        for (domain, user, item) in own
        if domain == 0 and (2, user, item) in own
    }
    assert len(shifts) == 1
    strangers = {
        round(min(own[1, user, item]) - min(own[0, user, item]), 3)
        for (domain, user, item) in own
        if domain == 0 and (1, user, item) in own
    }
    assert len(strangers) > 5


@pytest.mark.parametrize("families", [0, 21])
def test_families_out_of_range_are_refused(families: int) -> None:
    with pytest.raises(UsageError, match="valid are 1 to the 20 domains"):
        make_synthetic(Dials(domains=20, families=families))
