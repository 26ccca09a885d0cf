import pytest
import torch
from torch import nn

from sefar_mllm.projector import Projector


def made(dim=6, embed_dim=8, *, anchor=None, rms=0.5):
    projector = Projector(dim, 3, embed_dim)
    anchor = torch.zeros(embed_dim) if anchor is None else anchor
    projector.init(anchor, rms, torch.Generator().manual_seed(0))
    return projector


def telltale_tokens():
    """Every (frame, row, column) has a pattern of its own."""
    values = torch.arange(3 * 2 * 2 * 6.0).view(1, 3, 2, 2, 6)
    return torch.sin(values * values)


def test_each_token_is_projected_alone_and_in_the_order_of_time():
    projector = made()
    with torch.no_grad():
        projector.frame_position.copy_(torch.arange(18.0).view(3, 6))
    tokens = telltale_tokens()
    got = projector(tokens)[0]
    place = 0
    for frame in range(3):
        for row in range(2):
            for column in range(2):
                one = tokens[0, frame, row, column]
                one = (one - one.mean()) / (one.var(unbiased=False) + 1e-5).sqrt()
                one = one + torch.arange(18.0).view(3, 6)[frame]
                hidden = nn.functional.gelu(projector.up.weight @ one + projector.up.bias)
                expected = projector.down.weight @ hidden + projector.down.bias
                torch.testing.assert_close(got[place], expected, atol=1e-4, rtol=1e-4)
                place += 1
    assert place == len(got)
    scaled = projector(1000 * tokens)[0]  # an encoder's scale gives no advantage
    torch.testing.assert_close(scaled, got, atol=1e-3, rtol=1e-3)


def test_projected_tokens_start_around_the_anchor_as_large_as_word_embeddings():
    tokens = torch.randn(50, 3, 2, 2, 64, generator=torch.Generator().manual_seed(1))
    spread = made(64, 64, rms=0.02)(tokens).pow(2).mean().sqrt().item()
    assert spread == pytest.approx(0.02, rel=0.15)
    anchor = torch.linspace(-1, 1, 64)
    mean = made(64, 64, anchor=anchor, rms=0.1)(tokens).mean(dim=(0, 1))
    torch.testing.assert_close(mean, anchor, atol=0.3, rtol=0)
    with pytest.raises(ValueError, match="embed_rms must be > 0"):
        made(rms=0.0)


def test_tokens_are_projected_in_full_precision_under_autocast_too():
    projector, tokens = made(), telltale_tokens()
    assert projector(tokens.half()).dtype == torch.float32
    plain = projector(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(6, 8)(tokens).dtype == torch.bfloat16
        assert projector(tokens.bfloat16().float()).dtype == torch.float32
        assert torch.equal(projector(tokens), plain)
