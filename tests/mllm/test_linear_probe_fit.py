from itertools import islice

import pytest
import torch

from sefar_mllm.linear_probe import CHECK_STEPS, WEIGHT_DECAYS, choose_settings, held_out, learn


def test_learning_is_adam_on_cross_entropy_of_the_two_maps_in_turn():
    generator = torch.Generator().manual_seed(1)
    features = 5 + 3 * torch.randn(9, 4, generator=generator)
    rows = torch.tensor([0, 1, 2] * 3)
    got = next(learn(features, rows, torch.ones(9, dtype=torch.bool), weight_decay=0.5, lr=0.02))
    seen = features - features.mean(dim=0)
    scale = float(seen.pow(2).mean().sqrt())
    inner = torch.nn.Linear(4, 4, bias=False)
    outer = torch.nn.Linear(4, 3)
    torch.nn.init.zeros_(inner.weight)
    torch.nn.init.zeros_(outer.weight)
    torch.nn.init.zeros_(outer.bias)
    adam = torch.optim.AdamW([*inner.parameters(), *outer.parameters()], lr=0.02, weight_decay=0.5)
    for _ in range(CHECK_STEPS):
        x = seen / scale
        loss = -outer(x + inner(x)).log_softmax(dim=-1)[torch.arange(9), rows].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    with torch.no_grad():
        torch.testing.assert_close(got.map, torch.eye(4) + inner.weight, atol=1e-4, rtol=1e-4)
        expected = outer(seen / scale + inner(seen / scale))
        scores = features @ got.map.T @ got.weight.T + got.bias
        torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


def test_clips_left_out_of_learning_change_nothing():
    features = torch.randn(24, 4, generator=torch.Generator().manual_seed(2))
    rows = torch.tensor([0, 1, 2] * 8)
    out = held_out([f"source{number // 3}" for number in range(24)], seed=0)
    first = next(learn(features, rows, ~out, weight_decay=1.0, lr=0.01))
    features[out] = 77
    again = next(learn(features, rows, ~out, weight_decay=1.0, lr=0.01))
    assert torch.equal(first.map, again.map) and torch.equal(first.bias, again.bias)


def test_the_sources_of_a_seed_stay_the_same():
    sources = [f"s{number**3 % 17}" for number in range(120)]
    out = held_out(sources, 0).tolist()
    gone = {source for source, is_out in zip(sources, out, strict=True) if is_out}
    assert gone == {"s7", "s9", "s10", "s11"}


@pytest.mark.parametrize("seed", range(5))
def test_held_out_clips_share_no_source_with_the_others(seed):
    sources = [f"source{number // 4}" for number in range(40)] + ["large"] * 15
    out = held_out(sources, seed).tolist()
    kept = {source for source, gone in zip(sources, out, strict=True) if not gone}
    gone = {source for source, gone in zip(sources, out, strict=True) if gone}
    assert kept and gone and not kept & gone
    assert 11 <= sum(out) <= 11 + 15


@pytest.mark.parametrize("noise, gentle", [(0.0, True), (3.0, False)])
def test_settings_are_the_first_of_the_best_on_clips_held_out(noise, gentle):
    generator = torch.Generator().manual_seed(3)
    rows = torch.tensor([0, 1, 2] * 20)
    features = 4 * torch.eye(3)[rows] + noise * torch.randn(60, 3, generator=generator)
    out = held_out([f"source{number // 3}" for number in range(60)], seed=0)
    choice = choose_settings(features, rows, out, max_steps=75, lr=0.01)
    best = 0.0
    for decay in WEIGHT_DECAYS:
        walk = learn(features, rows, ~out, weight_decay=decay, lr=0.01)
        for solution in islice(walk, 3):
            scores = features[out] @ (solution.weight @ solution.map).T + solution.bias
            best = max(best, (scores.argmax(dim=1) == rows[out]).float().mean().item())
    assert choice.accuracy == pytest.approx(best)
    if gentle:  # all are right: the strongest pull and the fewest steps
        assert choice == (max(WEIGHT_DECAYS), CHECK_STEPS, 1.0)
