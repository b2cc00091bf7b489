"""Networks in inference give what they give as they are written, and are themselves again when they are to train."""

import pytest
import torch
from torch import nn

from encoders.inference import hasten, replace_forward, restore


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        activation = nn.GELU()
        self.mlp = nn.Sequential(nn.Linear(64, 128), activation, nn.Linear(128, 64), nn.LayerNorm(64), activation)
        self.layer = nn.Linear(64, 32, bias=False)

    def forward(self, tokens_NTD, **options):
        attended_NTD, _ = self.attention(tokens_NTD, tokens_NTD, tokens_NTD, need_weights=False, **options)
        return self.layer(self.mlp(attended_NTD))


@pytest.fixture
def networks():
    torch.manual_seed(0)
    plain, fast = Network().eval(), Network().eval()
    fast.load_state_dict(plain.state_dict())
    hasten(fast)
    return plain, fast


@pytest.mark.parametrize("options", [{}, {"attn_mask": torch.triu(torch.ones(7, 7), 1).bool()}])
@torch.inference_mode()
def test_inference_gives_the_same(networks, options):
    plain, fast = networks
    tokens_NTD = torch.randn(3, 7, 64)
    torch.testing.assert_close(fast(tokens_NTD, **options), plain(tokens_NTD, **options), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_in_bfloat16_the_directions_are_the_same(networks):
    plain, _ = networks
    tokens_NTD = torch.randn(3, 7, 64)
    expected = plain(tokens_NTD)
    fast = plain.to(torch.bfloat16)
    hasten(fast)
    cosines = nn.functional.cosine_similarity(fast(tokens_NTD.bfloat16()).float(), expected, dim=-1)
    assert cosines.min() > 0.999


@torch.inference_mode()
def test_fewer_queries_than_keys_attend_as_they_would_among_all(networks):
    _, fast = networks
    tokens_NTD = torch.randn(3, 7, 64)
    everywhere, _ = fast.attention(tokens_NTD, tokens_NTD, tokens_NTD, need_weights=False)
    first, _ = fast.attention(tokens_NTD[:, :1], tokens_NTD, tokens_NTD, need_weights=False)
    torch.testing.assert_close(first, everywhere[:, :1], atol=1e-5, rtol=1e-4)


def test_gradients_flow_as_ever(networks):
    plain, fast = networks
    tokens_NTD = torch.randn(3, 7, 64)
    for network in networks:
        network(tokens_NTD).square().sum().backward()
    torch.testing.assert_close(fast.layer.weight.grad, plain.layer.weight.grad)


def test_a_restored_network_follows_its_weights(networks):
    _, fast = networks
    tokens_NTD = torch.randn(3, 7, 64)
    restore(fast)
    with torch.no_grad():
        fast.layer.weight.mul_(2)
    with torch.inference_mode():
        after = fast(tokens_NTD)
        fast.layer.weight.div_(2)
        torch.testing.assert_close(after, 2 * fast(tokens_NTD))
    assert not any("forward" in vars(module) for module in fast.modules())


def test_restoring_takes_back_nothing_else():
    layer = nn.Linear(2, 2)
    mine = layer.forward
    layer.__dict__["forward"] = mine
    restore(layer)
    assert vars(layer)["forward"] is mine
    replace_forward(layer, lambda _: None)
    with torch.inference_mode():
        assert layer(torch.ones(1, 2)) is None
