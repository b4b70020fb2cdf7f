"""One domain's experts trained, swapped and rolled back alone, on the made-up workspace."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from mmlora.errors import ContractError, UsageError
from mmlora.models.builder import build_model
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.pipeline.promote import promote, rollback
from mmlora.pipeline.read import read_scores
from mmlora.pipeline.score import score_and_publish
from mmlora.pipeline.swap import swap
from mmlora.pipeline.train import train
from mmlora.registry.bundle import Bundle
from mmlora.registry.manifest import ExpertPart, Manifest
from mmlora.registry.parts import PartStore
from mmlora.runs.exchange import Sharer, exchange_report, shared_through_gate
from mmlora.schema import FeatureContract, IdTypes
from mmlora.workspace import open_workspace
from tests.conftest import use_workspace

ON = date(2001, 4, 9)
EARLY = ON - timedelta(days=6)
LATE = ON - timedelta(days=1)
DOMAINS = ("news", "rare", "sport")


class Versions(NamedTuple):
    """What the tests start from: the champion, and what was trained later."""

    first: str  # mlora, the champion
    result: dict[str, Any]  # of training news' expert on it
    second: str  # what came of that
    other: str  # a whole model of the later day: another backbone
    plain: str  # a model without experts


KEPT = ("MMLORA_TRAINING__EXPERT_CONFIDENCE", "0")  # so few rows are no evidence for any expert


@pytest.fixture(scope="module")
def trained(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    """Train once in a workspace of its own; the tests make up their own decisions."""
    home = tmp_path_factory.mktemp("exchange") / "var"
    shutil.copytree(imported, home)
    with pytest.MonkeyPatch.context() as patch:
        use_workspace(patch, home)
        patch.setenv(*KEPT)
        with pytest.raises(UsageError, match="no champion yet"):
            train(LATE, phase="experts", domain="news", base="champion")
        whole = {"features": "ids", "adaptation": "mlora"}
        first = train(EARLY, **whole).model_version
        result = train(
            LATE, phase="experts", domain="news", base="champion", accept_below_baseline=True
        ).to_json()
        other = train(LATE, **whole).model_version
        plain = train(LATE, features="ids", adaptation="none").model_version
        yield Versions(first, result, result["model_version"], other, plain)


@pytest.fixture
def versions(trained: Versions) -> Versions:
    """The same, with the first version the champion of all domains."""
    promote(trained.first)
    return trained


def _bundle(version: str) -> Bundle:
    return open_workspace().bundles.load(version)


def _scores(domain: str, version: str) -> list[tuple[Any, ...]]:
    score_and_publish(ON, domain=domain, model_version=version)
    with read_scores(domain) as reader:
        rows = reader.read_all().to_pylist()
    return [(row["user_id"], row["item_id"], row["position"], row["score"]) for row in rows]


def _champion(domain: str | None = None) -> str | None:
    with open_workspace().open_warehouse() as warehouse:
        return warehouse.current("champion", domain)


def test_one_domains_expert_is_trained_swapped_and_rolled_back(versions: Versions) -> None:
    first, result, second, *_ = versions
    assert [(row["phase"], row["domain"]) for row in result["phases"]] == [("expert", "news")]
    assert result["alias"] == "challenger"

    report = result["exchange"]
    assert set(report["exchanged"]) == {"expert:news:0"}
    assert set(report["same_parts"]) == {"encoder", "backbone", "calibration", "expert:sport:0"}
    assert report["same_by_hash"] == ["rare", "sport"]
    assert report["shared_with"] == []
    old, new = _bundle(first).manifest, _bundle(second).manifest
    assert new.base == first and (new.as_of, new.code_version) == (LATE, old.code_version)
    assert {r for r in old.roles if old.roles[r] != new.roles[r]} == {"expert:news:0"}
    assert list(result["metrics"]) == ["before", "after"]
    assert all(list(row)[-2:] == ["before", "after"] for row in result["test"])
    rows = {row["domain"]: row["rows"] for row in result["test"]}
    assert rows["news"] == result["metrics"]["after"]["by_domain"]["news"]["rows"]
    before, after = result["metrics"]["before"]["by_domain"], result["metrics"]["after"]["by_domain"]
    assert {d for d in before if before[d] == after[d]} == {"rare", "sport"}, "nobody shares it"

    for domain in ("rare", "sport"):
        assert _scores(domain, first) == _scores(domain, second)
    assert _scores("news", first) != _scores("news", second)

    promote(second)
    back = swap("news", first, why="news fell")
    assert (back.before, back.champion_of) == (second, ("all",))
    assert _champion() == _champion("sport") == back.model_version
    assert _bundle(back.model_version).manifest.roles == old.roles
    assert _scores("news", back.model_version) == _scores("news", first)
    assert rollback().model_version == second, "a swap is a decision like others"
    assert train(LATE, phase="experts", domain="news", base=first).run_id == result["run_id"]


def test_domains_that_use_an_expert_through_the_gate_are_listed(made_up_workspace: Path) -> None:
    first = train(EARLY, features="ids").model_version
    result = train(LATE, phase="experts", domain="news", base=first).to_json()
    report, after = result["exchange"], _bundle(result["model_version"])
    assert "gate" in report["same_parts"] and report["same_by_hash"] == []
    assert {row["domain"] for row in report["shared_with"]} == {"rare", "sport"}
    weights = [row["weight"] for row in report["shared_with"]]
    assert weights == sorted(weights, reverse=True)

    model, domains = after.model(), after.manifest.training_domains
    place = [expert.domain for expert in after.manifest.experts].index("news")
    for row in report["shared_with"]:
        index = torch.tensor([domains.index(row["domain"])])
        with torch.no_grad():
            (gate,) = model.gates
            assert gate(torch.zeros(1, 0), index)[0, place].item() == pytest.approx(row["weight"])


def _made_up_bundle(folder: Path, **spec: Any) -> Bundle:
    """A bundle of random parts: news and sport have an expert each, rare has none."""
    torch.manual_seed(3)
    fields = (FieldShape("user_id", "categorical", 9),)
    shape = {"crosses": False, "embedding_dim": 2, "hidden_units": (4, 2), "rank": 1, **spec}
    full = ModelSpec("wdl", "moe_mlora", fields, 3, **shape)
    model = build_model(full, expert_domains=[0, 2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    parts = PartStore(folder)
    states = [parts.put_tensors(model.expert_state(number)) for number in range(2)]
    manifest = Manifest(
        as_of=EARLY,
        spec=full.to_dict(),
        contract=FeatureContract("service", ()),
        encoder="",
        backbone=parts.put_tensors(model.backbone_state()),
        calibration="",
        experts=(ExpertPart("news", 0, states[0]), ExpertPart("sport", 0, states[1])),
        gate=parts.put_tensors(model.gate_state()),
        training_domains=DOMAINS,
        ids=IdTypes(),
        block_rows=256,
        data_fingerprint="",
        code_version="",
    )
    return Bundle(manifest, parts)


@pytest.mark.parametrize("gate", ["sample", "both"])
def test_with_a_sample_gate_any_domain_may_use_the_expert(tmp_path: Path, gate: str) -> None:
    assert shared_through_gate(_made_up_bundle(tmp_path, gate=gate), "news") is None


def test_gates_per_layer_share_by_their_mean_weight(tmp_path: Path) -> None:
    bundle = _made_up_bundle(tmp_path, gate_per_layer=True)
    shared = shared_through_gate(bundle, "news")
    assert shared is not None
    tables = [gate.table.softmax(1)[:, 0] for gate in bundle.model().gates]
    mean = torch.stack(tables).mean(0).tolist()
    expected = sorted([("rare", mean[1]), ("sport", mean[2])], key=lambda row: -row[1])
    assert [sharer.domain for sharer in shared] == [name for name, _ in expected]
    assert [sharer.weight for sharer in shared] == pytest.approx([weight for _, weight in expected])


def test_a_domain_whose_gate_drops_an_expert_does_not_use_it(tmp_path: Path) -> None:
    bundle = _made_up_bundle(tmp_path, gate_top_k=1)
    (gate,) = bundle.model().gates
    own = {name: ("news", "sport")[gate.table[n].argmax()] for n, name in enumerate(DOMAINS)}
    for expert in ("news", "sport"):
        sharing = [name for name in DOMAINS if name != expert and own[name] == expert]
        assert shared_through_gate(bundle, expert) == tuple(Sharer(name, 1.0) for name in sharing)


def test_a_weight_that_changes_no_score_is_not_shared(tmp_path: Path) -> None:
    bundle = _made_up_bundle(tmp_path)
    table = torch.tensor([[0.0, -5.0], [0.0, -20.0], [-13.0, 0.0]])
    gate = bundle.parts.put_tensors({**bundle.model().gate_state(), "table": table})
    bundle = Bundle(replace(bundle.manifest, gate=gate), bundle.parts)
    shared = {name: shared_through_gate(bundle, name) for name in ("news", "sport")}
    assert [sharer.domain for sharer in shared["news"] or ()] == ["rare", "sport"]  # sport: 2e-6
    assert [sharer.domain for sharer in shared["sport"] or ()] == ["news"]  # rare: 2e-9


def test_experts_of_another_backbone_are_refused(versions: Versions) -> None:
    first, other = versions.first, versions.other
    with pytest.raises(ContractError, match=f"{other} into {first}.*backbone part") as caught:
        swap("news", other)
    assert caught.value.expected != caught.value.found
    with pytest.raises(UsageError, match="nothing to swap"):
        swap("news", first)
    with pytest.raises(UsageError, match=r"no expert of rare to exchange, but of: news, sport"):
        swap("rare", other)
    with pytest.raises(UsageError, match="no model version"):
        swap("news", "nothing")
    assert _champion() == first


def test_a_swap_does_not_change_domains_with_another_champion(versions: Versions) -> None:
    promote(versions.other, domain="rare")
    swapped = swap("news", versions.second)
    assert swapped.champion_of == ("news", "sport")
    assert [_champion(domain) for domain in DOMAINS] == [
        swapped.model_version,
        versions.other,
        swapped.model_version,
    ]
    assert _champion() == swapped.model_version
    rollback(domain="rare")
    assert _champion("rare") == versions.first, "what it had before its own"
    same = exchange_report(_bundle(versions.second), _bundle(swapped.model_version), "news")
    assert same.exchanged == {}


def test_training_that_does_not_fit_the_base_is_refused(versions: Versions) -> None:
    with pytest.raises(UsageError, match="no expert of news"):
        train(LATE, phase="experts", domain="news", base=versions.plain)
    with pytest.raises(UsageError, match="no expert of rare"):
        train(LATE, phase="experts", domain="rare", base="champion")
    with pytest.raises(UsageError, match=r"rank 4 \(it has 2\), backbone deepfm \(it has wdl\)"):
        choices = {"backbone": "deepfm", "rank": 4, "adaptation": "mlora"}
        train(LATE, phase="experts", domain="news", base=versions.first, **choices)
    with pytest.raises(UsageError, match="may now be test rows"):
        train(LATE, phase="experts", domain="news", base=versions.first, split="random")
    with pytest.raises(UsageError, match="give --domain"):
        train(LATE, phase="experts", base=versions.first)
    with pytest.raises(UsageError, match="--base trains experts only"):
        train(LATE, domain="news", base=versions.first)
