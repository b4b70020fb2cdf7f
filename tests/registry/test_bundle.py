from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
import torch

from mmlora.errors import ContractError, UsageError
from mmlora.judging.judgement import nothing_judged
from mmlora.load_checks import ExpertUse
from mmlora.models.builder import assemble_mixture
from mmlora.registry.bundle import put_encoder
from mmlora.registry.manifest import Manifest, MixedExpert, Mixture
from tests.offsets import assert_same_bits


def test_save_and_load_change_no_score(trained):
    bundle = trained.store.load(trained.store.save(trained.manifest))
    encoder = bundle.encoder()
    assert encoder == trained.encoder
    batch = encoder.assemble([(encoder.encode(trained.table), np.arange(60))])
    assert set(batch.domain.tolist()) == {-1, 0, 1, 2}
    model = bundle.model()
    assert not model.training
    with torch.no_grad():
        logits, expected = model(batch), trained.model(batch)
        assert_same_bits(model, batch, expected)
        scores = bundle.calibration.apply(logits, batch.domain)
        assert torch.equal(scores, trained.calibration.apply(expected, batch.domain))
    assert bundle.contract == trained.manifest.contract


def test_a_manifest_comes_back_whole(trained):
    manifest = trained.manifest
    again = Manifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.created_at == manifest.created_at
    stored = json.loads(manifest.to_json())
    assert stored["model_version"] == manifest.model_version
    assert stored["contract_hash"] == manifest.contract.hash


def test_a_judgement_is_kept_and_is_no_part_of_the_version(trained):
    judged = replace(trained.manifest, judgement=nothing_judged("no test rows"))
    assert judged.model_version == trained.manifest.model_version
    assert Manifest.from_json(judged.to_json()).judgement == judged.judgement
    before = json.loads(trained.manifest.to_json())
    del before["judgement"], before["document_hash"]  # as it was written before there were judgements
    assert Manifest.from_json(json.dumps(before)).judgement is None


def test_storing_the_same_encoder_again_gives_the_same_part(trained):
    assert put_encoder(trained.store.parts, trained.encoder) == trained.manifest.encoder


@pytest.mark.parametrize("adaptation", ["moe_mlora"], indirect=True)
class TestWithExperts:
    def test_the_version_is_the_day_and_the_content(self, trained):
        manifest = trained.manifest
        later = replace(manifest, created_at=datetime(2030, 1, 1, tzinfo=UTC))
        assert later.model_version == manifest.model_version
        assert manifest.model_version == f"20001230-{manifest.content_hash[:8]}"
        for change in (
            {"as_of": date(2000, 12, 31)},
            {"block_rows": 2048},
            {"data_fingerprint": "e"},
            {"metrics": {}},
            {"code_version": "0.1.1"},
            {"gate": "0"},
            {"experts": manifest.experts[::-1]},
        ):
            assert replace(manifest, **change).model_version != manifest.model_version

    def test_a_changed_manifest_is_refused(self, trained):
        version = trained.store.save(trained.manifest)
        file = trained.store.path(version) / "manifest.json"
        text = file.read_text()
        file.write_text(text.replace('"block_rows": 1024', '"block_rows": 1'))
        with pytest.raises(ContractError, match="changed after it was written"):
            trained.store.load(version)
        trained.store.path("20010101-00000000").mkdir()
        (trained.store.path("20010101-00000000") / "manifest.json").write_text(text)
        with pytest.raises(ContractError, match=version):
            trained.store.load("20010101-00000000")
        file.write_text(text.replace('"format": 1', '"format": 9'))
        with pytest.raises(ContractError, match="layout 9"):
            trained.store.load(version)

    def test_exchanging_one_expert_leaves_every_other_part_the_same(self, trained):
        old = trained.manifest
        state = {name: value + 1 for name, value in trained.model.expert_state(2).items()}
        new = old.with_expert("M", 0, trained.store.parts.put_tensors(state))
        before, after = old.parts_of("M"), new.parts_of("M")
        assert {role for role in before if before[role] != after[role]} == {"expert:M:0"}
        assert [e[:2] for e in new.experts] == [e[:2] for e in old.experts]
        assert trained.store.save(new) != trained.store.save(old)
        loaded = trained.store.load(new.model_version).model()
        assert all(torch.equal(value, loaded.expert_state(2)[name]) for name, value in state.items())
        with pytest.raises(ContractError, match="'X' has no expert 0"):
            old.with_expert("X", 0, "part")

    def test_a_mixture_changes_one_domain_and_comes_back_whole(self, trained):
        old, (first, *_, last) = trained.manifest, trained.manifest.experts
        experts = (MixedExpert(*first, 0.5), MixedExpert(*last, 0.25))
        mixture = Mixture("new", experts, -0.75, date(2001, 1, 1), 900, (0.02, 0.01, 0.03), "they help")
        new = old.with_mixture(mixture)
        assert new.model_version != old.model_version
        assert Manifest.from_json(new.to_json()) == new and mixture.kind == "shared"
        assert {domain: new.parts_of(domain) for domain in "FMX"} == {d: old.parts_of(d) for d in "FMX"}
        assert new.parts_of("new").keys() - old.parts_of("new").keys() == {"expert:F:0", "expert:M:1"}
        assert new.with_mixture(replace(mixture, experts=())).mixtures[0].kind == "backbone"

        bundle, encoder = trained.store.load(trained.store.save(new)), trained.encoder
        batch = encoder.assemble([(encoder.encode(trained.table), np.arange(60))])
        with torch.no_grad():
            mixed = bundle.model_of("new")(batch)
            states = [(0.5, trained.model.expert_state(0)), (0.25, trained.model.expert_state(3))]
            spec = bundle.model_spec()
            again = assemble_mixture(spec, backbone=trained.model.backbone_state(), experts=states)
            assert torch.equal(mixed, again(batch)) and not torch.equal(mixed, bundle.model()(batch))
        assert (
            bundle.calibration_of("new")
            .apply(mixed, batch.domain)
            .equal(torch.sigmoid(mixed * trained.calibration.scale - 0.75))
        )
        assert bundle.calibration_of("F") == trained.calibration
        assert bundle.experts_of("new", bundle.model_of("new")) == ExpertUse("shared", {"F": 0.5, "M": 0.25})

    def test_rows_of_any_domains_are_scored_each_by_its_mixture(self, trained):
        experts = (MixedExpert(*trained.manifest.experts[0], 0.5),)
        mixture = Mixture("M", experts, -0.75, date(2001, 1, 1), 900, None, "they help")
        bundle = trained.store.load(trained.store.save(trained.manifest.with_mixture(mixture)))
        encoder, domains = trained.encoder, trained.manifest.training_domains
        batch = encoder.assemble([(encoder.encode(trained.table), np.arange(60))])
        whole, calibration = bundle.model_by_domain(), bundle.calibration_by_domain
        with torch.no_grad():
            logits = whole(batch)
            scores = calibration.apply(logits, batch.domain)
            for index, domain in enumerate(domains):
                own = batch.domain == index
                assert own.any()
                alone = bundle.model_of(domain)(batch.take(own.nonzero()[:, 0]))
                assert torch.allclose(logits[own], alone, rtol=1e-5, atol=1e-6)
                expected = bundle.calibration_of(domain).apply(alone, batch.domain[own])
                assert torch.allclose(scores[own], expected, rtol=1e-5, atol=1e-6)
        assert trained.store.load(trained.store.save(trained.manifest)).calibration_by_domain == (
            trained.calibration
        )

    def test_an_expert_of_its_own_ends_a_domains_mixture(self, trained):
        mixture = Mixture("M", (), 0.0, date(2001, 1, 1), 90, None, "too few rows")
        mixed = trained.manifest.with_mixture(mixture)
        assert mixed.with_expert("F", 0, trained.manifest.backbone).mixtures == (mixture,)
        assert mixed.with_expert("M", 0, trained.manifest.backbone).mixtures == ()

    def test_a_bundle_without_its_parts_is_not_saved(self, trained):
        with pytest.raises(ContractError, match="not in"):
            trained.store.save(replace(trained.manifest, backbone="0" * 64))
        with pytest.raises(ContractError, match="not training domains"):
            trained.store.save(replace(trained.manifest, training_domains=("F",)))
        assert trained.store.versions() == []

    def test_parts_that_do_not_belong_together_are_refused(self, trained):
        swapped = replace(trained.manifest, backbone=trained.manifest.gate)
        with pytest.raises(ContractError, match="backbone"):
            trained.store.load(trained.store.save(swapped)).model()
        other_domains = replace(trained.manifest, training_domains=("F", "M", "Y"))
        with pytest.raises(ContractError, match="other features or domains"):
            trained.store.load(trained.store.save(other_domains)).encoder()

    def test_versions_are_in_order_and_unknown_ones_named(self, trained):
        store, manifest = trained.store, trained.manifest
        with pytest.raises(UsageError, match="none: train first"):
            store.load("nothing")
        late = store.save(replace(manifest, as_of=date(2001, 1, 1)))
        second = store.save(replace(manifest, metrics={}, created_at=datetime(2032, 1, 1, tzinfo=UTC)))
        first = store.save(replace(manifest, created_at=datetime(2031, 1, 1, tzinfo=UTC)))
        assert store.versions() == [first, second, late]
        assert store.exists(first) and not store.exists("nothing")
        with pytest.raises(UsageError, match=late):
            store.load("nothing")
        store.save(manifest)  # the same again: what was there stays
        assert store.load(first).manifest.created_at == datetime(2031, 1, 1, tzinfo=UTC)


EXPECTED_ROLES = {
    "none": {"F": set(), "X": set()},
    "mlora": {"F": {"expert:F:0", "expert:F:1"}, "X": set()},
    "moe_mlora": {
        domain: {"expert:F:0", "expert:F:1", "expert:M:0", "expert:M:1", "gate"} for domain in ("F", "X")
    },
}


def test_a_domains_parts_are_those_that_its_scores_depend_on(trained, adaptation):
    shared = {"encoder", "backbone", "calibration"}
    for domain, own in EXPECTED_ROLES[adaptation].items():
        assert set(trained.manifest.parts_of(domain)) == shared | own
    assert set(trained.manifest.parts_of("never seen")) == shared


def test_a_manifest_knows_which_rows_its_model_may_have_seen(trained):
    whole, day = trained.manifest, trained.manifest.as_of
    assert whole.last_seen("M") == datetime(day.year, day.month, day.day, tzinfo=UTC)
    early = {"M": "2000-01-02T00:00:00+00:00", "F": "2000-01-03T00:00:00+00:00"}
    judged = replace(whole, seen_until=early)
    assert judged.last_seen("M") == datetime(2000, 1, 2, tzinfo=UTC)
    assert judged.last_seen("new") == datetime(2000, 1, 3, tzinfo=UTC), "whatever any domain has seen"
    assert judged.model_version == whole.model_version
    later = replace(whole, base="v1")
    assert later.last_seen("M") == later.created_at, "its parts may be those of a later model"
    mixed = judged.with_mixture(Mixture("M", (), 0.0, date(2001, 1, 1), 90, None, "too few rows"))
    assert mixed.last_seen("M") == datetime(2001, 1, 1, tzinfo=UTC)
    assert mixed.last_seen("F") == datetime(2000, 1, 3, tzinfo=UTC)
    new = Mixture("new", (), 0.0, date(2001, 2, 1), 90, None, "too few rows")
    assert judged.with_mixture(new).with_mixture(mixed.mixtures[0]).last_seen("new") == datetime(
        2001, 2, 1, tzinfo=UTC
    ), "a later mixture of another domain makes no difference"


def test_a_model_as_judged_comes_back_whole(trained):
    judged = replace(trained.manifest, block_rows=512)
    part = trained.store.save_judged(judged)
    assert trained.store.save_judged(judged) == part, "whenever it is stored"
    bundle = trained.store.load(trained.store.save(replace(trained.manifest, judged=part)))
    assert bundle.judged.manifest == judged and bundle.manifest == trained.manifest
    assert bundle.judged.judged.manifest == judged
