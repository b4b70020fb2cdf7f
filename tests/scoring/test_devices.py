"""Where scores are computed: what each device is asked for, and that host and device are never mixed.

Without a GPU the second is shown on tensors that lie in the host's memory but call themselves a GPU's, and
that refuse to meet others in an operation, as a GPU's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mmlora.candidates.pairs import Candidates, PairIndex
from mmlora.errors import UsageError
from mmlora.models.builder import BACKBONES, build_model
from mmlora.models.folding import fold
from mmlora.models.side_plans import pair_model
from mmlora.models.spec import FieldShape, ModelSpec
from mmlora.nights.engines import choose_engine
from mmlora.schema import IdTypes
from mmlora.scoring import devices
from mmlora.scoring.devices import require_precision, torch_device
from mmlora.scoring.score import LocalEngine
from mmlora.scoring.work import Work
from mmlora.settings import load_settings


class Gpu(torch.Tensor):
    """A tensor that says it is a GPU's."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return torch.device("cuda", 0)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # A slice of the host's memory may be written from a GPU, and a GPU's tensor may be sent to the host.
        target = args[0] if args else None
        if func is torch.Tensor.__setitem__ and not isinstance(target, Gpu):
            return super().__torch_function__(func, types, args, kwargs or {})
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, torch.Tensor) and not isinstance(value, Gpu) and value.dim():
                raise RuntimeError(f"{func.__name__}: a tensor of the host meets one of a GPU")
        return super().__torch_function__(func, types, args, kwargs or {})


class OnePretendedGpu(TorchFunctionMode):
    """Makes a :class:`Gpu` of what is sent to a GPU or made there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and str(args[1]).startswith("cuda"):
            return args[0].as_subclass(Gpu)
        if str(kwargs.get("device", "")).startswith("cuda"):
            return func(*args, **kwargs | {"device": "cpu"}).as_subclass(Gpu)
        return func(*args, **kwargs)


def sent(module: torch.nn.Module) -> torch.nn.Module:
    """What ``module.to("cuda")`` does, but for its class of parameters."""
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            own.update({name: value.detach().as_subclass(Gpu) for name, value in own.items()})
    return module


def folded_on_the_gpu(model: Any, domain: int) -> Any:
    folded = fold(model, domain)
    folded.to = lambda device: sent(folded)
    return folded


def work_of(world: Any, candidates: Candidates) -> Work:
    features = world.features(candidates)
    return Work(
        model=world.model, encoder=world.encoder, calibration=world.calibration, items=features.items,
        domain=features.domain, ids=world.ids, domain_id=world.domain, on=world.on, top_k=5, block_rows=256,
    )  # fmt: skip


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("gate", ["domain", "both"])
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_nothing_of_the_host_meets_anything_of_a_gpu(
    world_maker: Any, monkeypatch: pytest.MonkeyPatch, backbone: str, gate: str, listed: bool
) -> None:
    users, items = pa.array(range(11)), pa.array(range(100, 163))
    world = world_maker(users, items, IdTypes(), backbone)
    fields = tuple(FieldShape(*shape) for shape in world.encoder.field_shapes())
    spec = ModelSpec(
        *(backbone, "moe_mlora", fields, 2),
        crosses=False,
        embedding_dim=8,
        hidden_units=(16, 8),
        rank=2,
        gate=gate,
    )
    world.model = build_model(spec, expert_domains=[0, 1]).eval()
    # Of a list these are the pairs to score; of a grid, those to leave out.
    pairs = PairIndex.from_rows(*torch.tensor([[0, 0, 3, 9], [1, 5, 62, 0]]).numpy(), users=11)
    candidates = Candidates(users, items, pairs, listed)
    work, features = work_of(world, candidates), world.features(candidates)

    def rows(device: str) -> pa.Table:
        scorer = work.scorer(features.users, device=device)
        return pa.concat_tables(
            work.tables(candidates, scorer, memory=10_000, count=lambda _: None, device=device)
        )

    expected = rows("cpu")
    monkeypatch.setattr(pair_model, "fold", folded_on_the_gpu)
    with OnePretendedGpu():
        found = rows("cuda")
    assert found.equals(expected)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with OnePretendedGpu():
        there, here = torch.zeros(3).to("cuda"), torch.zeros(3)
        for mixed in (
            lambda: there + here,
            lambda: there.index_select(0, here.long()),
            lambda: here.add(there),
        ):
            with pytest.raises(RuntimeError, match="meets one of a GPU"):
                mixed()
        assert isinstance(there + torch.ones(3, device=there.device), Gpu)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_a_gpu_gives_the_scores_of_the_processor(
    world_maker: Any, grid: Candidates, tmp_path: Path, backbone: str, precision: str, tolerance: float
) -> None:
    import pyarrow.parquet as pq

    world = world_maker(grid.users, grid.items, IdTypes(), backbone)
    engines = {"cpu": LocalEngine(device="cpu"), "cuda": LocalEngine(device="cuda")}
    scores = {}
    for name, engine in engines.items():
        how = {"precision": precision if name == "cuda" else "float32", "top_k": 0}
        table = pq.read_table(world.score(grid, tmp_path / name, engine=engine, **how).files[0])
        order = [("user_id", "ascending"), ("item_id", "ascending")]
        scores[name] = torch.from_numpy(table.sort_by(order)["score"].to_numpy().copy())
    torch.testing.assert_close(scores["cuda"], scores["cpu"], rtol=0, atol=tolerance)


def test_the_setting_and_the_option_reach_the_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == "cuda"
    monkeypatch.setenv("MMLORA_SCORING__DEVICE", "cpu")
    monkeypatch.setenv("MMLORA_SCORING__MEMORY_MB", "7")
    assert choose_engine(load_settings(), "local", None) == LocalEngine(device="cpu", memory=7 << 20)
    assert choose_engine(load_settings(), "local", None, "cuda") == LocalEngine(device="cuda", memory=7 << 20)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto") == "cpu"
    with pytest.raises(UsageError, match="doesn't find a GPU; use auto or cpu"):
        choose_engine(load_settings(), "local", None, "cuda")


def test_a_gpu_is_not_asked_of_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_SCORING__MEMORY_MB", "7")
    with pytest.raises(UsageError, match="computes on CPUs"):
        choose_engine(load_settings(), "ray", None, "cuda")
    engine: Any = choose_engine(load_settings(), "ray", None, "auto")
    assert engine.memory == 7 << 20


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_bfloat16_is_refused_before_any_work_where_it_is_emulated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLORA_SCORING__PRECISION", "bfloat16")
    monkeypatch.setenv("MMLORA_SCORING__DEVICE", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False})
    with pytest.raises(UsageError, match=r"processor doesn't compute it natively; use float32"):
        choose_engine(load_settings(), engine, None)
    for native in ("avx512_bf16", "amx_bf16", "bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda native=native: {native: True})
        choose_engine(load_settings(), engine, None)


def test_an_old_gpu_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    with pytest.raises(UsageError, match="GPU doesn't compute it natively"):
        require_precision("bfloat16", "cuda")
    require_precision("float32", "cuda")
    assert not devices.has_bfloat16("cuda")
