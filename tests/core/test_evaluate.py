import pytest
import torch
from torch import nn

from sefar_core.evaluate import (
    average_views,
    confusion,
    pair_accuracy,
    predict,
    score,
    score_direction,
)

PROBS = torch.tensor(
    [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.3, 0.3, 0.4]]
)
LABELS = torch.tensor([0, 1, 1, 1, 2])


def test_scores_count_what_they_say():
    got = score(PROBS, LABELS, list("abcab"))
    assert got.num_clips == 5
    assert got.top1 == pytest.approx(3 / 5)
    assert got.top5 == 1
    assert got.mean_class == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert got.majority == pytest.approx(3 / 5)
    assert got.top1_interval[0] <= got.top1 <= got.top1_interval[1]


def test_top5_looks_at_five_classes():
    probs = torch.eye(8)[:2] * 0.5 + torch.arange(8) * 0.01
    assert score(probs, torch.tensor([0, 4]), ["a", "b"]).top5 == pytest.approx(1)
    assert score(probs, torch.tensor([1, 0]), ["a", "b"]).top5 == pytest.approx(0)


def test_a_class_without_clips_does_not_count():
    got = score(PROBS[:2], torch.tensor([0, 2]), ["a", "b"])
    assert got.mean_class == pytest.approx(1 / 2)


def test_confusion_puts_the_truth_in_rows():
    got = confusion(PROBS, LABELS)
    assert got.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 1]]


def test_pairs_compare_the_two_opposite_classes_alone():
    got = pair_accuracy(PROBS, LABELS, [(0, 1)])
    # Clips 0..3 belong to the pair; the third class, however probable, does not matter.
    assert got.tolist() == [1, 1, 1, 0]


def test_direction_is_scored_on_the_clips_of_pairs_and_on_their_sources_alone():
    """Clips 0 and 4 are of the pair, and only clip 0 is right; the interval is of two sources."""
    labels = torch.tensor([0, 1, 1, 1, 2])
    probs = torch.tensor(
        [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.5, 0.1, 0.4]]
    )
    got = score_direction(probs, labels, ["a", "b", "b", "b", "c"], [(0, 2)])
    assert got.direction == pytest.approx(1 / 2)
    assert got.direction_interval == (0.0, 1.0)
    one_source = score_direction(probs, labels, ["a", "b", "c", "d", "a"], [(2, 0)])
    assert one_source.direction_interval is None
    unknown = score_direction(probs, labels, ["", "c", "d", "e", ""], [(2, 0)])
    assert unknown.direction_interval == (0.0, 1.0)


def test_without_clips_of_a_pair_direction_has_no_score():
    for pairs in ([], [(0, 2)]):
        got = score_direction(PROBS[1:4], LABELS[1:4], list("abc"), pairs)
        assert got.direction is None and got.direction_interval is None


def test_views_of_one_clip_are_averaged_wherever_they_come():
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    got = average_views(probs, torch.tensor([7, 3, 7]))
    assert got.tolist() == [[0.0, 1.0], [0.75, 0.25]]


class Echo(nn.Module):
    """Gives the first element's first pixels as logits."""

    def forward(self, elements):
        assert not self.training
        return elements[0][:, :, 0, 0, 0]


def test_predictions_come_in_the_order_of_the_clips():
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    batches = [
        ([logits[1].view(1, 3, 1, 1, 1)], torch.tensor([2]), torch.tensor([1])),
        ([logits[0].view(1, 3, 1, 1, 1)], torch.tensor([0]), torch.tensor([0])),
    ]
    probs, labels = predict(Echo(), batches, torch.device("cpu"))
    torch.testing.assert_close(probs, logits.exp())
    assert labels.tolist() == [0, 2]


def test_clips_of_unknown_source_widen_the_interval_and_one_source_gives_none():
    unknown = score(PROBS, LABELS, [""] * 5).top1_interval
    assert unknown == score(PROBS, LABELS, list("abcde")).top1_interval
    assert unknown[1] - unknown[0] > 0.4
    assert score(PROBS, LABELS, ["a"] * 5).top1_interval is None


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="no clip to score"):
        score(PROBS[:0], LABELS[:0], [])


def test_scores_that_are_no_numbers_are_refused():
    elements = [torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]).view(2, 2, 1, 1, 1)]
    batches = [(elements, torch.tensor([0, 1]), torch.tensor([0, 1]))]
    with pytest.raises(ValueError, match="not numbers for 1 of 2 views: its training diverged"):
        predict(Echo(), batches, torch.device("cpu"))
