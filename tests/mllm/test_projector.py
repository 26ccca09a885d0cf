import pytest
import torch
from torch import nn

from sefar_mllm.projector import Projector


def started(token_dim=6, embed_dim=8, embed_rms=0.5):
    projector = Projector(token_dim, 3, embed_dim)
    projector.init(torch.zeros(embed_dim), embed_rms, torch.Generator().manual_seed(0))
    return projector


def telltale_tokens():
    """Every (frame, row, column) has a pattern of its own."""
    values = torch.arange(3 * 2 * 2 * 6.0).view(1, 3, 2, 2, 6)
    return torch.sin(values * values)


def test_each_token_is_projected_alone_and_in_the_order_of_time():
    projector = started()
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


def test_the_scale_of_an_encoder_gives_no_advantage():
    tokens = telltale_tokens()
    torch.testing.assert_close(started()(tokens), started()(1000 * tokens), atol=1e-3, rtol=1e-3)


def test_projected_tokens_start_as_large_as_word_embeddings():
    projector = started(token_dim=64, embed_dim=64, embed_rms=0.02)
    tokens = torch.randn(4, 3, 2, 2, 64, generator=torch.Generator().manual_seed(1))
    assert projector(tokens).pow(2).mean().sqrt().item() == pytest.approx(0.02, rel=0.15)


def test_half_precision_tokens_are_projected_in_full_precision():
    tokens = telltale_tokens().half()
    assert started()(tokens).dtype == torch.float32


def test_empty_embeddings_are_refused():
    with pytest.raises(ValueError, match="embed_rms must be > 0"):
        started(embed_rms=0.0)


def test_projected_tokens_start_around_the_anchor():
    projector = Projector(64, 3, 64)
    anchor = torch.linspace(-1, 1, 64)
    projector.init(anchor, 0.1, torch.Generator().manual_seed(0))
    tokens = torch.randn(50, 3, 2, 2, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(projector(tokens).mean(dim=(0, 1)), anchor, atol=0.3, rtol=0)


def test_autocast_takes_nothing_from_the_projectors_precision():
    projector, tokens = started(), telltale_tokens()
    plain = projector(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nn.Linear(6, 8)(tokens).dtype == torch.bfloat16
        for shown in (tokens, tokens.bfloat16().float()):
            assert projector(shown).dtype == torch.float32
        assert torch.equal(projector(tokens), plain)
