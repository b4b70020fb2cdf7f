import pytest
import torch

from mmlora.models.dropout import masks_from, relu_dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_drops_its_share_and_keeps_the_mean(share):
    out = relu_dropout(torch.ones(501, 403), share)
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    # Neither rows nor columns are favoured.
    assert (out == 0).float().mean(0).std().item() < 0.03
    assert (out == 0).float().mean(1).std().item() < 0.03


def test_value_and_gradient_are_those_of_relu_and_a_scaled_mask():
    x = torch.randn(20, 30, requires_grad=True)
    out = relu_dropout(x * 1.0, 0.2)
    kept = out.detach() != 0
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    scale = 1 / 0.8
    torch.testing.assert_close(out, torch.where(kept, x.relu() * scale, 0.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(x.grad, torch.where(kept, weight * scale, 0.0), rtol=1e-4, atol=0)
    assert not kept[x < 0].any()


def test_masks_follow_from_their_own_seed():
    def drawn(seed: int) -> torch.Tensor:
        with masks_from(seed):
            return torch.stack([relu_dropout(torch.ones(50), 0.5), relu_dropout(torch.ones(50), 0.5)])

    torch.manual_seed(0)
    first = drawn(1)
    state = torch.get_rng_state()
    assert torch.equal(first, drawn(1))
    assert not torch.equal(first, drawn(2))
    assert not torch.equal(*first)
    assert torch.equal(state, torch.get_rng_state())


def test_torchs_seed_decides():
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([relu_dropout(torch.ones(50), 0.5), relu_dropout(torch.ones(50), 0.5)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(*drawn(1))


def test_no_share_is_relu_alone():
    x = torch.randn(5)
    assert torch.equal(relu_dropout(x.clone(), 0.0), x.relu())
