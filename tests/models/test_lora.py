import pytest
import torch

from mmlora.models.lora import MoELoRALinear
from tests.offsets import OFFSETS, at_offset


def layer(experts: int = 3, rank: float = 2, out: int = 5, alpha: float = 4.0) -> MoELoRALinear:
    torch.manual_seed(0)
    made = MoELoRALinear(7, out, num_experts=experts, rank=rank, alpha=alpha)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_()
    return made


def test_equals_the_formula_expert_by_expert():
    made, x, gates = layer(), torch.randn(11, 7), torch.rand(11, 3)
    expected = x @ made.weight.T + made.bias
    for e in range(3):
        change = x @ made.lora_a[e] @ made.lora_b[e] + made.lora_c[e]
        expected = expected + (4.0 / 2) * gates[:, e : e + 1] * change
    torch.testing.assert_close(made(x, gates), expected, rtol=1e-5, atol=1e-5)


def test_a_narrow_output_takes_a_lower_rank_and_keeps_the_scale():
    made = layer(rank=4, out=1, alpha=8.0)
    assert made.lora_a.shape == (3, 7, 1)
    x, gates = torch.randn(2, 7), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
    change = x @ made.lora_a[0] @ made.lora_b[0] + made.lora_c[0]
    torch.testing.assert_close(made(x, gates) - made(x, None), 2.0 * change, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("share", "out", "rank"), [(0.5, 5, 2), (0.3, 20, 2), (0.9, 20, 6), (0.01, 20, 1), (0.5, 1, 1)]
)
def test_a_share_of_the_width_gives_every_layer_its_own_rank_and_scale(share, out, rank):
    made = layer(rank=share, out=out, alpha=6.0)
    assert made.lora_a.shape == (3, 7, rank)
    assert made.lora_b.shape == (3, rank, out)
    x, gates = torch.randn(4, 7), torch.tensor([[0.0, 1.0, 0.0]] * 4)
    change = x @ made.lora_a[1] @ made.lora_b[1] + made.lora_c[1]
    torch.testing.assert_close(made(x, gates) - made(x, None), 6.0 / rank * change, rtol=1e-4, atol=1e-4)


def test_without_experts_it_is_a_linear_layer():
    made, x = layer(experts=0), torch.randn(3, 7)
    expected = torch.nn.functional.linear(x, made.weight, made.bias)
    for offset in OFFSETS:
        assert torch.equal(at_offset(made, offset)(at_offset(x, offset), torch.zeros(3, 0)), expected)


@pytest.mark.parametrize("fresh", ["lora_b", "lora_c"])
def test_starts_as_the_backbone(fresh):
    made = MoELoRALinear(7, 5, num_experts=2, rank=2, alpha=4.0)
    assert (getattr(made, fresh) == 0).all()
    x = torch.randn(6, 7)
    for offset in OFFSETS:
        assert torch.equal(at_offset(made, offset)(at_offset(x, offset), torch.rand(6, 2)), made(x, None))
    assert (made.lora_a != 0).all()
