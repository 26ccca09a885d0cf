import pytest
import torch

from sefar_core.evaluate import score_trust, weigh_pseudo_labels
from sefar_core.teacher import PseudoLabel


def test_pseudo_labels_are_weighed_by_confidence_and_spread_and_held_against_the_truth():
    """Elements that carry their own opinion: label, confidence and spread as pixels."""

    def pseudo_label(elements):
        label, confidence, spread = elements[0][:, :, 0, 0, 0].unbind(dim=1)
        return PseudoLabel(torch.eye(5)[label.long()], label.long(), confidence, spread)

    def clips(*opinions):
        return [torch.tensor(opinions).view(len(opinions), 3, 1, 1, 1)]

    views = [
        (clips([3.0, 0.5, 0.25], [1.0, 0.75, 0.5]), torch.tensor([3, 2]), torch.tensor([0, 1])),
        (clips([4.0, 0.875, 0.0]), torch.tensor([4]), torch.tensor([2])),
    ]
    trust, right = weigh_pseudo_labels(
        pseudo_label, lambda confidence, spread: confidence - spread, views, torch.device("cpu")
    )
    assert trust.tolist() == [0.25, 0.25, 0.875]
    assert right.tolist() == [True, False, True]


def test_trust_is_averaged_over_right_and_over_wrong_pseudo_labels():
    trust = torch.tensor([0.5, 0.25, 0.75, 0.125])
    got = score_trust(trust, torch.tensor([True, False, True, True]))
    assert got.pseudo_labels_right == 3 / 4
    assert got.trust_of_right == pytest.approx((0.5 + 0.75 + 0.125) / 3)
    assert got.trust_of_wrong == 0.25


def test_trust_in_right_or_wrong_ones_is_none_if_there_are_none():
    trust = torch.tensor([0.5, 0.25])
    right = score_trust(trust, torch.tensor([True, True]))
    assert (right.pseudo_labels_right, right.trust_of_wrong) == (1.0, None)
    assert right.trust_of_right == 0.375
    wrong = score_trust(trust, torch.tensor([False, False]))
    assert (wrong.pseudo_labels_right, wrong.trust_of_right) == (0.0, None)
    assert wrong.trust_of_wrong == 0.375
