from dataclasses import replace

import pytest
import torch

from sefar_core import block
from sefar_core.checkpoint import build_model
from sefar_core.config import ModelConfig
from tests.oracles import tiny

NEAR = {"rtol": 1e-4, "atol": 1e-4}  # processors add the rows of another batch in another order


@pytest.fixture
def network():
    return tiny.network(replace(tiny.CONFIG, drop_path_rate=0.5)).eval()


def test_logits_have_a_row_a_clip_and_do_not_depend_on_the_batch(network):
    both = tiny.elements()
    together = network(both)
    alone = torch.cat([network([clip[i : i + 1] for clip in both]) for i in range(2)])
    assert together.shape == (2, 5)
    torch.testing.assert_close(together, alone, **NEAR)


@pytest.mark.parametrize(
    ("dim", "heads", "published"), [(384, 6, 31_264_227), (768, 12, 122_269_539)]
)
def test_parameter_counts_are_the_published_ones(dim, heads, published):
    with torch.device("meta"):
        network = build_model(ModelConfig(dim=dim, num_heads=heads), num_classes=99)
    assert sum(parameter.numel() for parameter in network.parameters()) == published


def test_the_fused_feature_joins_pairs_then_singles_in_their_order(network):
    seen = [network.backbone(clip, place)[0] for place, clip in enumerate(tiny.elements())]
    pairs = [network.pair(torch.cat([seen[i], seen[j]], -1)) for i, j in ((0, 1), (0, 2), (1, 2))]
    joined = torch.cat([*pairs, *[network.single(x) for x in seen]], -1)
    # Both fine elements go through the backbone together there, each by itself here.
    torch.testing.assert_close(network.features(tiny.elements()), network.joint(joined), **NEAR)


def test_every_element_and_every_frame_reaches_the_logits(network):
    before = network(tiny.elements())
    for place, clip in enumerate(tiny.elements()):
        for frame in range(clip.shape[2]):
            changed = tiny.elements()
            changed[place][:, :, frame] += 1
            assert (network(changed) - before).abs().max() > 1e-5


def test_frame_tokens_stand_in_the_order_of_time(network):
    elements = tiny.elements()
    tokens = network.frame_tokens(elements)
    assert tokens.shape == (2, 8, 2, 2, 16)
    # Segments of time 3, 7 | 1, 5 | 0, 2, 4, 6 belong to the elements of 2-2-4.
    for place, segments in enumerate([[3, 7], [1, 5], [0, 2, 4, 6]]):
        of_element = network.backbone(elements[place], place)[1]
        for frame, segment in enumerate(segments):
            shown = tokens[:, segment].flatten(1, 2)
            torch.testing.assert_close(shown, of_element[:, frame], **NEAR)


def test_a_single_element_works_and_other_elements_than_the_model_s_are_refused(network):
    single = tiny.network(replace(tiny.CONFIG, sizes=(8,)))
    assert single(tiny.elements(sizes=(8,))).shape == (2, 5)
    with pytest.raises(ValueError, match=r"\(2, 2, 4\) frames, but was given \(4, 2, 2\)"):
        network(tiny.elements(sizes=(4, 2, 2)))


def test_stochastic_depth_drops_rows_whole_and_keeps_the_mean():
    torch.manual_seed(0)
    residual = torch.ones(4000, 3, 5)
    dropped = block.drop_path(residual, 0.25, training=True)
    per_row = dropped.flatten(1)
    assert (per_row == per_row[:, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert block.drop_path(residual, 0.25, training=False) is residual


def test_attention_is_the_same_fused_and_spelled_out_and_over_time_among_few_keys(
    network, monkeypatch
):
    logits, counts = [], []

    def is_fused(device, dtype, *, num_rows, num_keys):
        counts.append(num_keys)
        return len(counts) <= 8  # the first pass alone

    monkeypatch.setattr(block, "is_fused", is_fused)
    for _ in range(2):
        logits.append(network(tiny.elements()))
    torch.testing.assert_close(*logits, **NEAR)
    # Two blocks; a frame has 4 patches and a class token. Both fine elements go together.
    assert counts == [2, 5, 2, 5, 4, 5, 4, 5] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_few_keys_of_a_place_never_meet_the_limits_of_cudas_kernels(dtype):
    fused = [block.is_fused("cuda", dtype, num_rows=100, num_keys=n) for n in (2, 4, 8)]
    fused += [block.is_fused("cuda", dtype, num_rows=65_535, num_keys=n) for n in (17, 50, 197)]
    assert fused == [False] * 3 + [True] * 3
    assert not block.is_fused("cuda", dtype, num_rows=65_536, num_keys=32)
