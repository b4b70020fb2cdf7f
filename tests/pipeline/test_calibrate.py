"""A champion whose scores are no click rates any more gets a new calibration from its published nights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmlora.errors import UsageError
from mmlora.nights.recalibrating import PublishedRows, refit_calibration, with_own_shift
from mmlora.pipeline.calibrate import calibrate, composed
from mmlora.pipeline.promote import promote
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.train import train
from mmlora.registry.manifest import Mixture
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import published, use_workspace

LAST = date(2001, 4, 9)
NIGHTS = [LAST - timedelta(days=back) for back in (3, 2, 1, 0)]


@pytest.fixture(scope="module")
def published_nights(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Nights of one domain by a champion whose scores are far too high, to be copied; the champion."""
    home = tmp_path_factory.mktemp("calibrated") / "var"
    shutil.copytree(trained[0], home)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        workspace = open_workspace()
        bundle = workspace.bundles.load(trained[1])
        high = tuple(shift + 2 for shift in bundle.calibration.domain_shifts)
        part = workspace.parts.put_json(replace(bundle.calibration, domain_shifts=high).to_json())
        version = workspace.bundles.save(replace(bundle.manifest, calibration=part, judgement=None))
        promote(version)
        for night in NIGHTS:
            score_and_publish(night, domain="news", top_k=0)
    return home, version


@pytest.fixture(autouse=True)
def workspace(published_nights: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_workspace(monkeypatch, tmp_path / "var")
    shutil.copytree(published_nights[0], tmp_path / "var")


def test_it_is_refitted_on_older_nights_and_judged_on_the_newest(published_nights: tuple[Path, str]) -> None:
    measured = calibrate(dry_run=True)
    assert (measured.fitted, measured.held_out) == (tuple(NIGHTS[:3]), (LAST,))
    assert (measured.better, measured.model_version, measured.alias) == (True, None, None)
    every = measured.domains[0]
    assert (every.before.calibration or 0) > 1.5 > 1.25 > (every.after.calibration or 0) > 0.75
    assert (every.after.ece or 0) < (every.before.ece or 0)

    done = calibrate(promote=True)
    workspace = open_workspace()
    old, new = (workspace.bundles.load(version) for version in (done.before, done.model_version or ""))
    changed = {role for role, part in old.manifest.roles.items() if part != new.manifest.roles[role]}
    assert (done.before, changed, new.manifest.base) == (published_nights[1], {"calibration"}, done.before)
    with workspace.open_warehouse() as warehouse:
        assert warehouse.current("champion") == warehouse.current("champion", "news") == done.model_version

    before = {(row["user_id"], row["item_id"]): row for row in published("news", LAST)}
    score_and_publish(LAST, domain="news", top_k=0)
    for row in published("news", LAST):
        earlier = before[row["user_id"], row["item_id"]]
        assert row["position"] == earlier["position"] and row["score"] < earlier["score"]
    with pytest.raises(UsageError, match="nothing is published"):
        calibrate(start=LAST + timedelta(days=1))
    again = calibrate(dry_run=True)
    assert again.rows == measured.rows, "nights by the calibration before count, as their logits are known"
    assert not again.better


def test_one_domain_is_corrected_alone_and_becomes_the_challenger() -> None:
    done = calibrate("news")
    assert done.alias == "challenger"
    workspace = open_workspace()
    old, new = (workspace.bundles.load(v).calibration for v in (done.before, done.model_version or ""))
    moved = [a != b for a, b in zip(old.domain_shifts, new.domain_shifts, strict=True)]
    assert moved == [True, False, False] and (old.scale, old.shift) == (new.scale, new.shift)


def test_too_few_labels_change_nothing() -> None:
    with pytest.raises(UsageError, match=r"labels of published nights of 1 date; .* others are needed"):
        calibrate(start=LAST)


def test_the_command_prints_both_sides() -> None:
    shown = CliRunner().invoke(app, ["calibrate", "--all-domains", "--dry-run"]).output
    assert "ece after" in shown and "this was a dry run" in shown
    assert CliRunner().invoke(app, ["calibrate"]).exit_code != 0


@pytest.mark.slow
def test_a_model_of_sampled_negatives_is_registered_with_lower_odds(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__NEGATIVES_PER_ROW", "4")
    outcome = train(date(2001, 4, 8), features="ids", adaptation="none")
    bundles = open_workspace().bundles
    plain, corrected = (bundles.load(str(v)) for v in (trained[1], outcome.model_version))
    assert corrected.calibration == replace(plain.calibration, negatives=4.0)
    assert corrected.manifest.backbone == plain.manifest.backbone
    assert outcome.judgement.contenders[0].calibration == pytest.approx(
        plain.manifest.judgement.contenders[0].calibration
    ), "the test rows are sampled too"


def test_a_domain_with_a_mixture_has_its_own_shift_refitted(published_nights: tuple[Path, str]) -> None:
    workspace = open_workspace()
    manifest = workspace.bundles.load(published_nights[1]).manifest
    mixture = Mixture("new", (), 2.0, LAST, 10, None, "a test")
    bundle = workspace.bundles.load(workspace.bundles.save(manifest.with_mixture(mixture)))
    domains, base = with_own_shift(bundle)
    assert domains == ["news", "rare", "sport", "new"] and base.domain_shifts[3] == 2.0

    draw = np.random.default_rng(0)
    logit, day = draw.normal(size=4000), draw.integers(1, 9, 4000)
    label = (draw.random(4000) < 1 / (1 + np.exp(-base.scale * logit))).astype(np.int8)
    rows = PublishedRows(day, np.full(4000, 3), logit, label)
    refitted = refit_calibration(bundle, rows, "new")
    assert refitted.better and len(refitted.held_out) == 2
    new = workspace.bundles.load(composed(workspace, bundle, refitted))
    assert new.calibration_of("new").shift == pytest.approx(0, abs=0.3)
    assert new.calibration == bundle.calibration, "no other domain's is changed"
