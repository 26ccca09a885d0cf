"""Scores, controls of the order of frames, and the trust in pseudo-labels."""

from collections import Counter
from itertools import permutations

import pytest
import torch
from torch import nn

from sefar_core.evaluate import (
    FRAME_ORDERS,
    average_views,
    confusion,
    pair_accuracy,
    permutation,
    predict,
    score,
    score_direction,
    score_trust,
    weigh_pseudo_labels,
)
from sefar_core.teacher import PseudoLabel

PROBS = torch.tensor(
    [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.3, 0.3, 0.4]]
)
LABELS = torch.tensor([0, 1, 1, 1, 2])
CPU = torch.device("cpu")


def test_scores_count_what_they_say():
    got = score(PROBS, LABELS, list("abcab"))
    assert got.num_clips == 5
    assert got.top1 == pytest.approx(3 / 5)
    assert got.top5 == 1
    assert got.mean_class == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert got.majority == pytest.approx(3 / 5)
    assert got.top1_interval[0] <= got.top1 <= got.top1_interval[1]
    assert score(PROBS[:2], torch.tensor([0, 2]), ["a", "b"]).mean_class == 1 / 2  # no clip of 1
    assert score(PROBS, LABELS, ["a"] * 5).top1_interval is None
    assert confusion(PROBS, LABELS).tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 1]]
    with pytest.raises(ValueError, match="no clip to score"):
        score(PROBS[:0], LABELS[:0], [])


def test_top5_looks_at_five_classes():
    probs = torch.eye(8)[:2] * 0.5 + torch.arange(8) * 0.01
    assert score(probs, torch.tensor([0, 4]), ["a", "b"]).top5 == pytest.approx(1)
    assert score(probs, torch.tensor([1, 0]), ["a", "b"]).top5 == pytest.approx(0)


def test_pairs_compare_the_two_opposite_classes_alone():
    # Clips 0..3 belong to the pair; the third class, however probable, does not matter.
    assert pair_accuracy(PROBS, LABELS, [(0, 1)]).tolist() == [1, 1, 1, 0]


def test_direction_is_scored_on_the_clips_of_pairs_and_on_their_sources_alone():
    """Clips 0 and 4 are of the pair, and only clip 0 is right; the interval is of two sources."""
    probs = torch.cat([PROBS[:4], torch.tensor([[0.5, 0.1, 0.4]])])
    got = score_direction(probs, LABELS, ["a", "b", "b", "b", "c"], [(0, 2)])
    assert got.direction == pytest.approx(1 / 2)
    assert got.direction_interval == (0.0, 1.0)
    one_source = score_direction(probs, LABELS, ["a", "b", "c", "d", "a"], [(2, 0)])
    assert one_source.direction_interval is None
    unknown = score_direction(probs, LABELS, ["", "c", "d", "e", ""], [(2, 0)])
    assert unknown.direction_interval == (0.0, 1.0)
    for pairs in ([], [(0, 2)]):
        got = score_direction(PROBS[1:4], LABELS[1:4], list("abc"), pairs)
        assert got.direction is None and got.direction_interval is None


def test_views_of_one_clip_are_averaged_wherever_they_come():
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert average_views(probs, torch.tensor([7, 3, 7])).tolist() == [[0.0, 1.0], [0.75, 0.25]]


class Echo(nn.Module):
    """Gives the first element's first pixels as logits."""

    def forward(self, elements):
        assert not self.training
        return elements[0][:, :, 0, 0, 0]


def clips(*pixels) -> list[torch.Tensor]:
    """One element whose channels are these numbers."""
    return [torch.tensor(pixels)[:, :, None, None, None]]


def test_predictions_come_in_the_order_of_the_clips_and_must_be_numbers():
    late, early = [0.1, 0.1, 0.8], [0.7, 0.2, 0.1]
    batches = [
        (clips(late), torch.tensor([2]), torch.tensor([1])),
        (clips(early), torch.tensor([0]), torch.tensor([0])),
    ]
    probs, labels = predict(Echo(), batches, CPU)
    torch.testing.assert_close(probs, torch.tensor([early, late]).softmax(dim=-1))
    assert labels.tolist() == [0, 2]
    broken = [(clips([1.0, 2.0], [torch.nan, 0.0]), torch.tensor([0, 1]), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match="not numbers for 1 of 2 views: its training diverged"):
        predict(Echo(), broken, CPU)


def shown(order, count, clip_id="clip"):
    """The numbers of the frames that an order shows; frame i is a picture of the number i."""
    numbered = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 2, 3, 3)
    out = FRAME_ORDERS[order](numbered, clip_id)
    assert out.shape == numbered.shape and (out == out[:, :1, :1, :1]).all()
    return out[:, 0, 0, 0].tolist()


def test_the_orders_are_those_of_the_protocol():
    assert shown("in_order", 5) == [0, 1, 2, 3, 4]
    assert shown("reversed", 5) == [4, 3, 2, 1, 0]
    assert (shown("middle", 5), shown("middle", 8)) == ([2] * 5, [4] * 8)
    assert sorted(shown("shuffled", 5)) == [0, 1, 2, 3, 4]
    assert shown("shuffled", 2, "any") == [1, 0]
    assert all(shown(order, 1) == [0] for order in FRAME_ORDERS)


def test_shuffling_hangs_on_the_clip_alone_and_every_other_order_is_about_equally_likely():
    assert shown("shuffled", 8, "a") == shown("shuffled", 8, "a") != shown("shuffled", 8, "b")
    drawn = Counter(tuple(shown("shuffled", 3, f"clip{i}")) for i in range(1000))
    assert set(drawn) == set(permutations(range(3))) - {(0, 1, 2)}
    assert all(150 < count < 250 for count in drawn.values())  # 200 +- 4 standard deviations
    assert [tuple(permutation(n, 4)) for n in range(24)] == list(permutations(range(4)))


def test_pseudo_labels_are_weighed_by_confidence_and_spread_and_held_against_the_truth():
    """Elements that carry their own opinion: label, confidence and spread as pixels."""

    def pseudo_label(elements):
        label, confidence, spread = elements[0][:, :, 0, 0, 0].unbind(dim=1)
        return PseudoLabel(torch.eye(5)[label.long()], label.long(), confidence, spread)

    views = [
        (clips([3.0, 0.5, 0.25], [1.0, 0.75, 0.5]), torch.tensor([3, 2]), torch.tensor([0, 1])),
        (clips([4.0, 0.875, 0.0]), torch.tensor([4]), torch.tensor([2])),
    ]
    trust, right = weigh_pseudo_labels(pseudo_label, torch.sub, views, CPU)
    assert trust.tolist() == [0.25, 0.25, 0.875]
    assert right.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("right", "of_right", "of_wrong"),
    [((1, 0, 1, 1), 1.375 / 3, 0.25), ((1, 1, 1, 1), 1.625 / 4, None), ((0,) * 4, None, 1.625 / 4)],
)
def test_trust_is_averaged_over_right_and_over_wrong_pseudo_labels(right, of_right, of_wrong):
    got = score_trust(torch.tensor([0.5, 0.25, 0.75, 0.125]), torch.tensor(right).bool())
    assert got.pseudo_labels_right == sum(right) / 4
    assert (got.trust_of_right, got.trust_of_wrong) == pytest.approx((of_right, of_wrong))
