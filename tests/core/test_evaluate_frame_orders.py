from collections import Counter
from itertools import permutations

import pytest
import torch

from sefar_core.evaluate import FRAME_ORDERS, permutation


def frames(count):
    """Frame i is a picture of the number i."""
    return torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 2, 3, 3)


def shown(order, count, clip_id="clip"):
    return FRAME_ORDERS[order](frames(count), clip_id)[:, 0, 0, 0].tolist()


def test_the_orders_are_those_of_the_protocol():
    assert shown("in_order", 5) == [0, 1, 2, 3, 4]
    assert shown("reversed", 5) == [4, 3, 2, 1, 0]
    assert shown("middle", 5) == [2] * 5
    assert shown("middle", 8) == [4] * 8
    assert sorted(shown("shuffled", 5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("order", FRAME_ORDERS)
def test_whole_frames_move_and_are_left_alone(order):
    given = torch.randint(256, (4, 2, 3, 3), dtype=torch.uint8)
    before = given.clone()
    out = FRAME_ORDERS[order](given, "clip")
    assert out.shape == given.shape and torch.equal(given, before)
    assert all(any(torch.equal(frame, source) for source in given) for frame in out)


@pytest.mark.parametrize("order", FRAME_ORDERS)
def test_a_single_frame_stays(order):
    assert shown(order, 1) == [0]


def test_shuffling_hangs_on_the_clip_alone_and_never_leaves_the_order():
    assert shown("shuffled", 8, "a") == shown("shuffled", 8, "a") != shown("shuffled", 8, "b")
    drawn = {tuple(shown("shuffled", 8, f"clip{i}")) for i in range(300)}
    assert tuple(range(8)) not in drawn and len(drawn) > 290
    assert shown("shuffled", 2, "any") == [1, 0]


def test_every_other_order_is_drawn_about_equally_often():
    drawn = Counter(tuple(shown("shuffled", 3, f"clip{i}")) for i in range(1000))
    assert set(drawn) == set(permutations(range(3))) - {(0, 1, 2)}
    assert all(150 < count < 250 for count in drawn.values())  # 200 +- 4 standard deviations


def test_permutations_are_numbered_in_dictionary_order():
    assert [tuple(permutation(n, 4)) for n in range(24)] == list(permutations(range(4)))
