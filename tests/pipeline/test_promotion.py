"""Promotion by evidence: what is compared on which rows, what the policy decides, and what is kept of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmlora.errors import CheckError, UsageError
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.promote_by_policy import after_training, explain, promote_by_policy, question
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.status import status
from mmlora.registry.verify import BundleVerifier
from mmlora.runs.champions import CHALLENGER, CHAMPION
from mmlora.runs.held_out import compare_with_champions
from mmlora.runs.unused import UnusedFiles
from mmlora.schema import midnight
from mmlora.settings import load_settings
from mmlora.workspace import open_workspace
from tests.conftest import use_workspace

AS_OF, ON, LATER = date(2001, 4, 8), date(2001, 4, 9), date(2001, 4, 11)


def backwards(version: str) -> str:
    """Store a model that ranks all items in the opposite order, with the training rows of another."""
    workspace = open_workspace()
    judged = workspace.bundles.load(version).judged
    opposite = replace(judged.calibration, scale=-judged.calibration.scale)
    part = workspace.parts.put_json(opposite.to_json())
    return workspace.bundles.save(replace(judged.manifest, calibration=part))


def make_challenger(version: str) -> None:
    with open_workspace().open_warehouse() as warehouse:
        warehouse.promote(None, version, alias=CHALLENGER, who="me", why="a test")


def current(domain: str | None = None, alias: str = CHAMPION) -> str | None:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.current(alias, domain)


@pytest.fixture(scope="module")
def informed(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained workspace, and a later day on which users clicked what its model puts first."""
    home = Path(shutil.copytree(trained[0], tmp_path_factory.mktemp("informed") / "var"))
    rng, rows = np.random.default_rng(5), 1500
    table = pa.table(
        {
            "user_id": [f"u{number:02d}" for number in rng.integers(0, 60, rows)],
            "item_id": rng.integers(100, 140, rows),
            "domain_id": rng.choice(["news", "sport"], rows),
        }
    )
    judged = open_workspace(load_settings(home=home)).bundles.load(trained[1]).judged
    encoder = judged.encoder()
    batch = encoder.assemble([(encoder.encode(table), np.arange(rows))])
    with torch.inference_mode():
        logits = judged.model()(batch).numpy()
    seconds = np.sort(rng.choice(86_400, rows, replace=False))
    moments = [datetime(2001, 4, 10, tzinfo=UTC) + timedelta(seconds=int(second)) for second in seconds]
    clicks = (logits + rng.normal(0, logits.std(), rows) > np.median(logits)).astype(np.int8)
    path = home.parent / "later.parquet"
    pq.write_table(table.append_column("event_timestamp", [moments]).append_column("label", [clicks]), path)
    with pytest.MonkeyPatch.context() as here:
        use_workspace(here, home)
        import_tables(path)
    return home


@pytest.fixture
def good(trained: tuple[Path, str], informed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The trained champion, where a hundred rows are enough to compare on."""
    use_workspace(monkeypatch, tmp_path / "var")
    shutil.copytree(informed, tmp_path / "var")
    monkeypatch.setenv("MMLORA_PROMOTION__MIN_ROWS", "100")
    return trained[1]


def test_the_model_as_judged_is_compared_on_rows_that_it_has_not_seen(good: str) -> None:
    workspace = open_workspace()
    bundle = workspace.bundles.load(good)
    assert bundle.manifest.judged is not None, "the registered model was trained on all rows"
    seen = {domain: bundle.judged.manifest.last_seen(domain) for domain in ("news", "sport")}
    evidence = compare_with_champions(workspace, backwards(good), midnight(AS_OF))
    assert evidence is not None and evidence.first is not None and evidence.last is not None
    assert min(seen.values()) < evidence.first < evidence.last < midnight(AS_OF)
    judged = {row.domain: row for row in evidence.domains}
    model = bundle.manifest.judgement.contenders[0].by_domain  # type: ignore[union-attr]
    for domain in ("news", "sport"):
        assert judged[domain].rows == model[domain].rows, "the test rows of its training"  # type: ignore[index]
        assert judged[domain].champion_auc == pytest.approx(model[domain].auc)  # type: ignore[index]
    assert judged["rare"].standing == "not compared"


def test_a_model_of_all_rows_is_compared_on_later_rows_only(good: str) -> None:
    workspace = open_workspace()
    manifest = replace(workspace.bundles.load(good).manifest, judged=None, block_rows=512)
    unjudged = workspace.bundles.save(manifest)
    assert unjudged != good
    assert workspace.bundles.load(unjudged).manifest.last_seen("news") == midnight(AS_OF)
    evidence = compare_with_champions(workspace, unjudged, midnight(AS_OF))
    assert evidence is not None and evidence.pooled.rows == 0
    later = compare_with_champions(workspace, unjudged, datetime.now(UTC))
    assert later is not None and later.first is not None and later.first > midnight(AS_OF)


def test_the_parts_of_the_model_as_judged_are_kept_and_verified(good: str) -> None:
    workspace = open_workspace()
    judged = workspace.bundles.load(good).manifest.judged
    with workspace.open_warehouse() as warehouse:
        kept = UnusedFiles(workspace, warehouse, {good}, days=1)._named_parts()
    parts = workspace.bundles.load(good).judged.manifest.parts
    tables = workspace.parts.json(workspace.bundles.load(good).judged.manifest.encoder)["tables"].values()
    assert {judged, *parts, *tables} <= kept
    assert BundleVerifier(workspace.bundles).faults(good) == ()
    (workspace.parts.root / f"{parts[1]}.safetensors").unlink()
    (fault,) = BundleVerifier(workspace.bundles).faults(good)
    assert fault.startswith("as judged, backbone: ")


def test_a_worse_challenger_stays_one_and_the_log_says_why(good: str) -> None:
    worse = backwards(good)
    with pytest.raises(UsageError, match="is not the challenger"):
        promote_by_policy(worse, as_of=LATER)
    make_challenger(worse)
    outcome = promote_by_policy(worse, as_of=LATER)
    assert outcome.decided and outcome.ruling.promoted == ()
    assert (current(), current(alias=CHALLENGER)) == (good, worse)
    with open_workspace().open_warehouse() as warehouse:
        kept = warehouse.promotions(CHALLENGER, limit=1)[0]
    assert kept.why.startswith("by policy: it is worse beyond the margin of 0.002 auc in all domains (")
    assert kept.evidence == outcome.evidence.to_json()  # type: ignore[union-attr]


def test_a_better_challenger_is_promoted_and_rolled_back(good: str) -> None:
    poor = backwards(good)
    promote(poor, accept_worse=True)
    make_challenger(good)
    before = explain(good, as_of=LATER)
    assert not before.decided and before.ruling.promoted == ("all domains",) and current() == poor
    outcome = promote_by_policy(good, as_of=LATER)
    assert outcome.ruling == before.ruling and current() == good
    decision = next(each for each in status().decisions if each.why.startswith("by policy: it is better in"))
    assert (decision.model_version, decision.alias, decision.domain) == (good, CHAMPION, "all domains")
    assert rollback().model_version == poor, "going back is never refused"


def test_a_person_is_refused_a_worse_model_without_the_flag(good: str) -> None:
    worse = backwards(good)
    with pytest.raises(CheckError, match=r"worse in .*news \(-.*--accept-worse"):
        promote(worse, domain="news")
    assert promote(worse, domain="rare").before == good, "nothing is known of so few rows"
    accepted = promote(worse, accept_worse=True, why="a test")
    assert accepted.own_before == {"rare": worse} and accepted.evidence is not None
    with open_workspace().open_warehouse() as warehouse:
        newest = warehouse.promotions(CHAMPION, limit=1)[0]
    assert newest.why == "a test (accepted worse than the champion)"
    assert newest.evidence is not None and newest.evidence["challenger"] == worse


def test_each_domain_is_compared_with_its_own_champion(good: str) -> None:
    poor = backwards(good)
    promote(poor, domain="sport", accept_worse=True)
    make_challenger(good)
    evidence = explain(good, as_of=LATER).evidence
    assert evidence is not None and evidence.pooled.champion is None
    rows = {row.domain: row for row in evidence.domains}
    assert (rows["news"].champion, rows["news"].difference, rows["news"].standing) == (good, 0.0, "level")
    assert (rows["sport"].champion, rows["sport"].standing) == (poor, "better")
    assert promote_by_policy(good, as_of=LATER).ruling.promoted == ("all domains",)
    assert [current(domain) for domain in ("news", "sport", None)] == [good, good, good]


@pytest.mark.parametrize("damaged", ["manifest", "calibration"])
def test_a_damaged_champion_of_a_domain_blocks_no_promotion(good: str, damaged: str) -> None:
    poor, bundles = backwards(good), open_workspace().bundles
    promote(poor, domain="sport", accept_worse=True)
    files = {
        "manifest": bundles.path(poor) / "manifest.json",
        "calibration": bundles.parts.root / f"{bundles.load(poor).manifest.calibration}.json",
    }
    files[damaged].write_text("{", encoding="utf-8")
    evidence = promote(good).evidence
    assert evidence is not None and evidence.pooled.standing == "level"
    rows = {row.domain: row for row in evidence.domains}
    assert rows["news"].standing == "level", "the others are compared as ever"
    assert rows["sport"].standing == "not compared"
    assert (
        rows["sport"].note.startswith(f"champion {poor} can't be compared: ")
        and "restore it" in rows["sport"].note
    )
    assert current("sport") == good


def test_a_champion_whose_judged_model_is_lost_blocks_no_promotion(good: str) -> None:
    worse, workspace = backwards(good), open_workspace()
    judged = workspace.bundles.load(good).manifest.judged
    (workspace.parts.root / f"{judged}.json").unlink()
    evidence = promote(worse).evidence
    assert evidence is not None and evidence.pooled.standing == "not compared"
    assert all(row.note.startswith(f"champion {good} can't be compared: part ") for row in evidence.domains)
    assert current() == worse


def test_a_domain_gets_the_model_alone_where_the_settings_say_so(
    good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenger is better than sport's champion, and worse than that of news."""
    poor = backwards(good)
    promote(poor, domain="sport", accept_worse=True)
    workspace = open_workspace()
    judged = workspace.bundles.load(good).judged
    weak = replace(judged.calibration, scale=0.0)
    level = workspace.bundles.save(
        replace(judged.manifest, calibration=workspace.parts.put_json(weak.to_json()))
    )
    make_challenger(level)
    assert promote_by_policy(level, as_of=LATER).ruling.promoted == ()
    monkeypatch.setenv("MMLORA_PROMOTION__SCOPE", "domain")
    assert promote_by_policy(level, as_of=LATER).ruling.promoted == ("sport",)
    assert [current(domain) for domain in ("news", "rare", "sport", None)] == [good, good, level, good]


def test_a_promotion_waits_for_a_person_if_the_settings_say_so(
    good: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = backwards(good)
    promote(poor, accept_worse=True)
    make_challenger(good)
    assert question(good, as_of=LATER) is None
    monkeypatch.setenv("MMLORA_PROMOTION__APPROVAL", "true")
    subject, text = question(good, as_of=LATER) or ("", "")
    assert good in subject and "| news | " in text and " | better |" in text
    assert question(poor, as_of=LATER) is None, "it isn't the challenger"
    assert "eve did not approve" in after_training(good, as_of=LATER, who="eve", agreed=False)
    assert current() == poor
    assert "becomes the champion of all domains" in after_training(good, as_of=LATER, who="eve", agreed=True)
    promoted, refused = status().decisions[:2]
    assert (promoted.who, promoted.alias, refused.who, refused.alias) == ("eve", CHAMPION, "eve", CHALLENGER)
    assert promoted.why.endswith("(approved)") and refused.why.startswith("not approved, though by policy")


def test_a_rollback_of_a_domain_restores_its_exact_scores(good: str) -> None:
    def hashes() -> dict[str, str | None]:
        score_and_publish(ON)
        with open_workspace().open_warehouse() as warehouse:
            loads = [warehouse.load(night.load_id) for night in warehouse.publications(start=ON, end=ON)]
        return {str(load.domain_id): load.content_hash for load in loads}

    first = hashes()
    promote(backwards(good), domain="news", accept_worse=True)
    second = hashes()
    assert second["news"] != first["news"] and second["sport"] == first["sport"]
    rollback(domain="news")
    assert hashes() == first
