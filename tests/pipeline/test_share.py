"""Experts for a domain that the champion wasn't trained on, from its first night."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from mmlora.errors import ContractError, UsageError
from mmlora.metrics.ranking import auc
from mmlora.pipeline.calibrate import calibrate
from mmlora.pipeline.data import import_tables
from mmlora.pipeline.explain import explain
from mmlora.pipeline.gc import gc
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.share import SharedDomain, share_experts
from mmlora.pipeline.status import status
from mmlora.pipeline.train import train
from mmlora.pipeline.verify import verify
from mmlora.registry.manifest import MixedExpert, Mixture
from mmlora.runs.champions import replace_champion
from mmlora.runs.training_run import data_of, open_run
from mmlora.runs.verdicts import verdicts_as_of
from mmlora.schema import midnight
from mmlora.training.loop import predict
from mmlora.workspace import open_workspace
from mmlora_cli.main import app
from tests.conftest import MadeUp, assume_rich, published, use_workspace

TRAINED, ON = date(2001, 4, 8), date(2001, 4, 9)
NEW = "fresh"


@pytest.fixture(scope="module")
def with_a_new_domain(
    imported: Path, made_up: MadeUp, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A workspace whose champion has experts of news and sport; then rows of a domain like news arrive."""
    home = tmp_path_factory.mktemp("sharing") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as patch:
        use_workspace(patch, home)
        patch.setenv("MMLORA_TRAINING__EXPERT_CONFIDENCE", "0")  # keep every expert that helps at all
        train(TRAINED, features="ids", adaptation="mlora")
        rows = pq.read_table(made_up.interactions)
        rows = rows.filter(pc.equal(rows["domain_id"], "news"))
        rows = rows.set_column(2, "domain_id", pa.array([NEW] * rows.num_rows))
        pq.write_table(rows, home.parent / "fresh.parquet")
        import_tables([home.parent / "fresh.parquet"], history=True)
        yield home


@pytest.fixture
def workspace(with_a_new_domain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_workspace(monkeypatch, tmp_path / "var")
    return Path(shutil.copytree(with_a_new_domain, tmp_path / "var"))


def _champion(domain: str) -> str | None:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.current("champion", domain)


def _scores(domain: str) -> list[tuple[object, ...]]:
    score_and_publish(ON, domain=domain)
    return [(row["user_id"], row["item_id"], row["score"]) for row in published(domain)]


def _share(**options: object) -> SharedDomain:
    (outcome,) = share_experts(ON, domains=[NEW], **options)
    return outcome


def test_a_new_domain_is_scored_at_once_and_then_by_what_was_decided(workspace: Path) -> None:
    alone, others = _scores(NEW), _scores("sport")
    before = _champion("sport")
    outcome = _share()
    assert outcome.rows > 2000 and outcome.gain is not None
    manifest = open_workspace().bundles.load(outcome.model_version).manifest
    assert manifest.base == before == outcome.before
    assert _champion(NEW) == outcome.model_version and _champion("sport") == before, "only the new domain's"
    shared = _scores(NEW)
    assert shared != alone and _scores("sport") == others
    (row,) = (row for row in status().domains if row.domain_id == NEW)
    assert row.experts is not None and row.experts.policy == outcome.policy

    rollback(domain=NEW)
    assert _scores(NEW) == alone, "the exact scores of before"


def test_deciding_again_on_the_same_rows_or_on_fewer_changes_nothing(workspace: Path) -> None:
    first = _share()
    for on in (ON, ON - timedelta(days=20), date(2001, 3, 1)):
        (again,) = (each for each in share_experts(on) if each.domain_id == NEW)
        assert (again.model_version, again.before) == (first.model_version, first.model_version)
        assert (again.policy, again.experts) == (first.policy, first.experts)


def test_a_dry_run_decides_and_changes_nothing(workspace: Path) -> None:
    before = _champion(NEW)
    outcome = _share(dry_run=True)
    assert outcome.model_version == outcome.before == before == _champion(NEW)


def test_a_mixture_is_scored_explained_verified_and_kept_by_gc(workspace: Path) -> None:
    space = open_workspace()
    base = space.bundles.load(_champion(NEW) or "")
    outcome = _share()
    decided = space.bundles.load(outcome.model_version).manifest.mixture_of(NEW)
    assert decided is not None
    news, sport = base.manifest.experts
    changed = {name: 2 * value for name, value in base.parts.tensors(news.part).items()}
    own = base.parts.put_tensors(changed)
    unnamed = base.parts.put_tensors({name: 2 * value for name, value in changed.items()})
    experts = (MixedExpert("news", 0, own, 0.5), MixedExpert(*sport, 0.25))
    mixed = base.manifest.with_mixture(type(decided)(**{**vars(decided), "experts": experts}))
    version = space.bundles.save(mixed)
    score_and_publish(ON, domain=NEW, model_version=version)
    row = published(NEW)[0]
    found = explain(NEW, user=str(row["user_id"]), item=str(row["item_id"]))
    assert found.gate == {"news": 0.5, "sport": 0.25} and found.shift == decided.shift
    assert found.score == pytest.approx(row["score"], abs=1e-6)
    files = {part: base.parts.root / f"{part}.safetensors" for part in (own, unnamed)}
    for file in files.values():
        os.utime(file, (0, 0))
    gc(keep_days=1, keep_loads=1)
    assert {part for part, file in files.items() if file.exists()} == {own}, (
        "nothing but the mixture names it"
    )
    assert not verify().faults
    files[own].unlink()
    (fault,) = verify().faults
    assert f"expert:news:0 in the mixture of {NEW}" in fault.fault


def test_experts_trained_on_a_shared_model_leave_other_domains_their_mixtures(workspace: Path) -> None:
    base = _share().model_version
    result = train(TRAINED, phase="experts", domain="news", base=base, accept_below_baseline=True)
    bundles = open_workspace().bundles
    before, after = (bundles.load(version or "").manifest for version in (base, result.model_version))
    assert before.mixture_of(NEW) is not None
    assert (after.base, after.mixtures) == (base, before.mixtures)
    assert after.last_seen(NEW) == before.last_seen(NEW) == midnight(ON), "rows later than the training's"


@pytest.mark.slow
def test_a_mixture_keeps_its_experts_when_its_shift_is_refitted(workspace: Path) -> None:
    """Share with a new domain, publish nights that are far too high, and calibrate."""
    space = open_workspace()
    shared = space.bundles.load(_share().model_version)
    decided = shared.manifest.mixture_of(NEW)
    assert decided is not None
    experts = (MixedExpert(*shared.manifest.experts[0], 0.5),)
    high = shared.manifest.with_mixture(replace(decided, experts=experts, shift=decided.shift + 2))
    promote(space.bundles.save(high), domain=NEW, accept_worse=True)
    assume_rich(ON - timedelta(days=3), ON)
    for back in (3, 2, 1, 0):
        score_and_publish(ON - timedelta(days=back), domain=NEW, top_k=0)
    done = calibrate(NEW, promote=True)
    mixture = space.bundles.load(done.model_version or "").manifest.mixture_of(NEW)
    assert mixture is not None and mixture.experts == experts
    assert decided.shift - 0.5 < mixture.shift < decided.shift + 1.5, "down, as far as so few rows say"
    assert (_champion(NEW), _champion("sport")) == (done.model_version, shared.manifest.base)
    before = published(NEW, ON)
    score_and_publish(ON, domain=NEW, top_k=0)
    after = published(NEW, ON)
    assert [row["item_id"] for row in after] == [row["item_id"] for row in before], "the same order"
    assert all(new["score"] < old["score"] for new, old in zip(after, before, strict=True))


def test_an_expert_that_does_not_help_leaves_its_domain_the_mixture(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMLORA_TRAINING__EXPERT_CONFIDENCE", "0.9999")
    space = open_workspace()
    base = space.bundles.load(_champion("sport") or "")
    news, sport = base.manifest.experts
    none = {name: 0 * value for name, value in base.parts.tensors(sport.part).items()}
    manifest = base.manifest.with_expert("sport", 0, base.parts.put_tensors(none))
    mixture = Mixture("sport", (MixedExpert(*news, 0.5),), 0.3, TRAINED, 90, None, "a test")
    mixed = space.bundles.load(space.bundles.save(manifest.with_mixture(mixture)))
    version = mixed.manifest.model_version
    result = train(TRAINED, phase="experts", domain="sport", base=version, accept_below_baseline=True)
    assert [phase.helped for phase in result.phases] == [False]
    assert space.bundles.load(result.model_version or "").manifest.mixtures == (mixture,)
    figures = [result.metrics[phase].by_domain["sport"] for phase in ("before", "after")]
    assert figures[0] == figures[1]

    _, run = open_run(result.run_id)
    data = data_of(space, run)
    rows = data.rows("test")
    rows = rows[data.domain[rows] == list(data.domains).index("sport")]
    logits, labels = predict(mixed.model_of("sport"), data, rows)
    scores = mixed.calibration_of("sport").apply(torch.from_numpy(logits).double(), torch.tensor(0)).numpy()
    assert figures[0].auc == pytest.approx(auc(labels, scores))
    assert figures[0].calibration == pytest.approx(scores.sum() / labels.sum())


def test_a_domain_of_the_training_goes_back_to_what_that_gave_it(workspace: Path, made_up: MadeUp) -> None:
    """Shared experts that no longer help are removed, for the whole model rather than the backbone alone."""
    space = open_workspace()
    base = space.bundles.load(_champion("rare") or "")
    experts = tuple(MixedExpert(*expert, 1.0) for expert in base.manifest.experts)
    version = space.bundles.save(
        base.manifest.with_mixture(Mixture("rare", experts, 0.0, ON, 10, None, "a test"))
    )
    promote(version, domain="rare")
    rows = pq.read_table(made_up.interactions).slice(0, 2000)
    moments = pc.add(pa.scalar(TRAINED), pa.array([timedelta(seconds=20 * n) for n in range(2000)]))
    for name, values in {
        "domain_id": pa.array(["rare"] * 2000),
        "event_timestamp": pc.cast(moments, rows["event_timestamp"].type),
        "label": pa.array(np.random.default_rng(0).integers(0, 2, 2000), rows["label"].type),
    }.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    pq.write_table(rows, workspace.parent / "rare.parquet")
    import_tables([workspace.parent / "rare.parquet"], history=True)
    assert share_experts(ON, domains=["rare"], dry_run=True)[0].policy == "backbone"
    (outcome,) = share_experts(ON, domains=["rare"])
    manifest = space.bundles.load(outcome.model_version).manifest
    assert outcome.before == version and manifest.mixtures == ()
    assert manifest.parts_of("rare") == base.manifest.parts_of("rare")


def test_a_composition_replaces_its_base_only_where_that_is_the_champion(workspace: Path) -> None:
    own = _share().model_version
    space = open_workspace()
    before = _champion("sport") or ""
    made = space.bundles.save(
        space.bundles.load(before).manifest.with_mixture(Mixture("x", (), 1.0, ON, 9, None, "a test"))
    )
    assert replace_champion(space, before, made, "champion", "a test") == ["news", "rare", "sport"]
    assert (_champion("sport"), _champion(NEW)) == (made, own)
    with space.open_warehouse() as warehouse:
        assert warehouse.current("champion") == made


def test_a_domain_that_fails_or_has_no_champion_does_not_stop_the_others(workspace: Path) -> None:
    space = open_workspace()
    before = _champion(NEW) or ""
    damaged = space.bundles.save(replace(space.bundles.load(before).manifest, block_rows=512))
    promote(damaged, domain="rare")
    (space.bundles.path(damaged) / "manifest.json").write_text("{", encoding="utf-8")
    outcomes = {outcome.domain_id: outcome for outcome in share_experts(ON)}
    assert (outcomes["rare"].policy, outcomes["rare"].exit_code) == (None, 1)
    assert outcomes["rare"].model_version == outcomes["rare"].before == damaged
    assert "manifest.json is broken" in outcomes["rare"].reason
    assert outcomes[NEW].exit_code == 0 and outcomes[NEW].rows > 2000
    shown = CliRunner().invoke(app, ["share", "--as-of", str(ON), "--dry-run"])
    assert shown.exit_code == 1 and "mmlora: rare: " in shown.output and NEW in shown.output
    with pytest.raises(ContractError, match="broken"):
        share_experts(ON, domains=["rare"])


def test_without_a_champion_there_is_nothing_to_share(made_up_workspace: Path) -> None:
    assert share_experts(ON) == ()
    with pytest.raises(UsageError, match="no champion yet"):
        share_experts(ON, domains=["rare"])


def test_a_broken_domain_is_not_decided(workspace: Path) -> None:
    space, before = open_workspace(), _champion(NEW)
    verdicts_as_of(space, ON)
    with space.open_warehouse() as warehouse:
        (own,) = (verdict for verdict in warehouse.verdicts(ON) if verdict.domain_id == NEW)
        warehouse.record_verdicts([replace(own, verdict="broken")])
    outcome = _share()
    assert (outcome.model_version, outcome.gain) == (before, None)
    assert outcome.reason == f"its verdict as of {ON} is broken"


def test_too_few_rows_decide_nothing_and_say_so(workspace: Path) -> None:
    for domain, on in (("rare", ON), (NEW, date(2001, 3, 1))):  # few rows since the training; none at all
        (outcome,) = share_experts(on, domains=[domain])
        assert outcome.policy == "backbone" and outcome.model_version == outcome.before
        assert "too few to tell" in outcome.reason


def test_a_domain_with_an_expert_and_a_model_without_any_are_refused(workspace: Path) -> None:
    kept = [
        name
        for name in ("news", "sport")
        if name not in {o.domain_id for o in share_experts(ON, dry_run=True)}
    ]
    assert kept, "the domains with an expert are left out"
    with pytest.raises(UsageError, match=r"has an expert of its own.*train experts --domain"):
        share_experts(ON, domains=kept[:1])
    with pytest.raises(UsageError, match="nowhere"):
        share_experts(ON, domains=["nowhere"])


def test_a_model_without_experts_gives_a_new_domain_a_shift_and_nothing_else(
    trained_workspace: Path, made_up: MadeUp
) -> None:
    assert share_experts(ON) == ()
    rows = pq.read_table(made_up.interactions)
    rows = rows.filter(pc.equal(rows["domain_id"], "news"))
    clicks = pa.array((np.arange(rows.num_rows) % 2).astype(np.int8)).cast(rows["label"].type)
    for name, values in {"domain_id": pa.array([NEW] * rows.num_rows), "label": clicks}.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    pq.write_table(rows, trained_workspace.parent / "fresh.parquet")
    import_tables([trained_workspace.parent / "fresh.parquet"], history=True)
    (outcome,) = share_experts(ON)
    assert (outcome.domain_id, outcome.policy, outcome.experts) == (NEW, "backbone", {})
    manifest = open_workspace().bundles.load(outcome.model_version).manifest
    (mixture,) = manifest.mixtures
    assert mixture.shift > 0, "half of its rows are clicks, more than elsewhere"
    with pytest.raises(UsageError, match="has no expert to share"):
        share_experts(ON, domains=["rare"])
