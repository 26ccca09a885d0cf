import pytest
import torch
from torch import nn

from sefar_core.mixing import MIX_TARGETS, MixPlan, draw_mix_plan, mix_elements, one_each, tube_mix
from tests.oracles import method as oracle

PROBS = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8]])


def test_mixing_follows_the_mask_patch_by_patch():
    own, partner = torch.rand(1, 1, 2, 4, 6), torch.rand(1, 1, 2, 4, 6)
    keep = torch.tensor([[True, False, False], [False, True, False]])
    got = tube_mix(own, partner, keep, patch=2)
    expected = oracle.tube_mix(own[0, 0].tolist(), partner[0, 0].tolist(), keep.tolist(), 2)
    assert got[0, 0].tolist() == expected
    with pytest.raises(ValueError, match="covers"):
        tube_mix(own, partner, torch.ones(3, 3, dtype=torch.bool), patch=2)


def test_mixing_pixels_is_mixing_tokens():
    torch.manual_seed(0)
    embed = nn.Conv3d(3, 8, kernel_size=(1, 16, 16), stride=(1, 16, 16))
    clip, partner = torch.randn(2, 2, 3, 4, 64, 64)
    keep = torch.rand(4, 4) < 0.5
    by_tokens = torch.where(keep, embed(clip), embed(partner))
    torch.testing.assert_close(embed(tube_mix(clip, partner, keep, patch=16)), by_tokens)


def test_a_mix_plan_permutes_the_batch_and_keeps_the_share():
    plan = draw_mix_plan(10, 14, 3, 0.53, torch.Generator().manual_seed(0))
    assert sorted(plan.partners[0].tolist()) == list(range(10))
    assert all(torch.equal(partner, plan.partners[0]) for partner in plan.partners)
    assert [int(mask.sum()) for mask in plan.keep] == [int(0.53 * 196)] * 3
    assert not torch.equal(plan.keep[0], plan.keep[1])
    assert plan.share == 0.53
    public = draw_mix_plan(10, 4, 3, 0.5, torch.Generator().manual_seed(0), partners=one_each)
    assert len({tuple(partner.tolist()) for partner in public.partners}) == 3
    with pytest.raises(ValueError, match="share"):
        draw_mix_plan(4, 4, 3, 1.2, torch.Generator())


def test_an_element_is_mixed_with_its_own_partners_of_the_other_view():
    own = [torch.full((3, 1, 1, 2, 2), 1.0), torch.full((3, 1, 2, 2, 2), 2.0)]
    others = [torch.arange(3.0).view(3, 1, 1, 1, 1).expand_as(x) + 10 for x in own]
    nothing_kept = [torch.zeros(2, 2, dtype=torch.bool)] * 2
    partners = [torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1])]
    mixed = mix_elements(own, others, MixPlan(partners, 0.0, nothing_kept), patch=1)
    assert mixed[0][:, 0, 0, 0, 0].tolist() == [11, 12, 10]
    assert mixed[1][:, 0, 1, 1, 1].tolist() == [12, 10, 11]


def test_targets_take_the_share_of_each_and_follow_the_last_element():
    partners = [torch.tensor([0, 1]), torch.tensor([1, 0])]
    got = MixPlan(partners, 0.75, []).blend(PROBS)
    expected = [0.75 * 0.7 + 0.25 * 0.05, 0.75 * 0.2 + 0.25 * 0.15, 0.75 * 0.1 + 0.25 * 0.8]
    assert got[0].tolist() == pytest.approx(expected)
    assert got.sum(dim=1).tolist() == pytest.approx([1, 1])


def test_sharp_targets_are_labels_where_the_trust_is_whole():
    got = MIX_TARGETS["sharp"](PROBS, torch.tensor([1.0, 0.0]))
    assert got[0].tolist() == [1, 0, 0]
    assert torch.equal(got[1], PROBS[1])
    assert torch.equal(MIX_TARGETS["soft"](PROBS, torch.ones(2)), PROBS)
