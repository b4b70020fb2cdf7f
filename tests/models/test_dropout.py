import pytest
import torch

from mmlora.models.dropout import dropout


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_drops_its_share_and_keeps_the_mean(share):
    out = dropout(torch.ones(501, 403), share)
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=0.005)
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    # Neither rows nor columns are favoured.
    assert (out == 0).float().mean(0).std().item() < 0.03
    assert (out == 0).float().mean(1).std().item() < 0.03


def test_the_gradient_passes_where_values_are_kept():
    x = torch.randn(20, 30, requires_grad=True)
    out = dropout(x, 0.5)
    out.sum().backward()
    assert torch.equal(x.grad, (out != 0).float() * 2)


def test_torchs_seed_decides():
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.stack([dropout(torch.ones(50), 0.5), dropout(torch.ones(50), 0.5)])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(*drawn(1))


def test_no_share_changes_nothing():
    x = torch.randn(5)
    assert torch.equal(dropout(x, 0.0), x)
