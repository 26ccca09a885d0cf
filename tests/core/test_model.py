import pytest
import torch

from sefar_core import block
from sefar_core.checkpoint import build_model
from sefar_core.config import ModelConfig

TINY = ModelConfig(
    image_size=32, patch_size=16, dim=16, depth=2, num_heads=2, fusion_dim=8, drop_path_rate=0.5
)


def clips(batch: int = 2, sizes=(2, 2, 4)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, frames, 32, 32, generator=generator) for frames in sizes]


def model(config: ModelConfig = TINY):
    torch.manual_seed(0)
    network = build_model(config, num_classes=5)
    with torch.no_grad():  # the temporal path must not hide behind its zero start
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def test_logits_have_a_row_a_clip_and_do_not_depend_on_the_batch():
    network = model()
    both = clips(2)
    together = network(both)
    alone = torch.cat([network([clip[i : i + 1] for clip in both]) for i in range(2)])
    assert together.shape == (2, 5)
    # Processors sum the rows of another batch in another order.
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dim", "heads", "published"), [(384, 6, 31_264_227), (768, 12, 122_269_539)]
)
def test_parameter_counts_are_the_published_ones(dim, heads, published):
    with torch.device("meta"):
        network = build_model(ModelConfig(dim=dim, num_heads=heads), num_classes=99)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


def test_the_fused_feature_joins_pairs_then_singles_in_their_order():
    network = model()
    seen = [network.backbone(clip, place)[0] for place, clip in enumerate(clips())]
    pairs = [network.pair(torch.cat([seen[i], seen[j]], -1)) for i, j in ((0, 1), (0, 2), (1, 2))]
    joined = torch.cat([*pairs, *[network.single(x) for x in seen]], -1)
    # Both fine elements go through the backbone together there, each by itself here.
    got, expected = network.features(clips()), network.joint(joined)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_every_element_and_every_frame_reaches_the_logits():
    network = model()
    before = network(clips())
    for place in range(3):
        for frame in range(clips()[place].shape[2]):
            changed = clips()
            changed[place][:, :, frame] += 1
            assert (network(changed) - before).abs().max() > 1e-5


def test_frame_tokens_stand_in_the_order_of_time():
    network = model()
    elements = clips()
    tokens = network.frame_tokens(elements)
    assert tokens.shape == (2, 8, 2, 2, 16)
    # Segments of time 3, 7 | 1, 5 | 0, 2, 4, 6 belong to the elements of 2-2-4.
    for place, segments in enumerate([[3, 7], [1, 5], [0, 2, 4, 6]]):
        of_element = network.backbone(elements[place], place)[1]
        for frame, segment in enumerate(segments):
            shown = tokens[:, segment].flatten(1, 2)
            torch.testing.assert_close(shown, of_element[:, frame], rtol=1e-4, atol=1e-4)


def test_a_single_element_has_no_pairs_and_works():
    config = ModelConfig(sizes=(8,), image_size=32, dim=16, depth=1, num_heads=2, fusion_dim=8)
    assert model(config)(clips(sizes=(8,))).shape == (2, 5)


def test_other_elements_than_the_model_s_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 4\) frames, but was given \(4, 2, 2\)"):
        model()(clips(sizes=(4, 2, 2)))


def test_stochastic_depth_drops_rows_whole_and_keeps_the_mean():
    from sefar_core.block import drop_path

    torch.manual_seed(0)
    residual = torch.ones(4000, 3, 5)
    dropped = drop_path(residual, 0.25, training=True)
    per_row = dropped.flatten(1)
    assert (per_row == per_row[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert drop_path(residual, 0.25, training=False) is residual


def test_attention_is_the_same_fused_and_spelled_out(monkeypatch):
    network, logits = model(), []
    for fused in (True, False):
        monkeypatch.setattr(block, "is_fused", lambda *_, fused=fused, **__: fused)
        logits.append(network(clips()))
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)  # sums of another order


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_few_keys_of_a_place_never_meet_the_limits_of_cudas_kernels(dtype):
    for frames in (2, 4, 8):
        assert not block.is_fused("cuda", dtype, num_rows=100, num_keys=frames)
    for tokens in (17, 50, 197):
        assert block.is_fused("cuda", dtype, num_rows=65_535, num_keys=tokens)
    assert not block.is_fused("cuda", dtype, num_rows=65_536, num_keys=32)


def test_every_call_over_time_is_among_few_keys(monkeypatch):
    counts = []

    def is_fused(device, dtype, *, num_rows, num_keys):
        counts.append(num_keys)
        return True

    monkeypatch.setattr(block, "is_fused", is_fused)
    model()(clips())
    # Two blocks; a frame has 4 patches and a class token. Both fine elements go together.
    assert counts == [2, 5, 2, 5, 4, 5, 4, 5]
