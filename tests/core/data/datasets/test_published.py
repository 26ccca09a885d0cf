"""The published lists of Diving48 V2, UCF101 and HMDB51, against figures that are known of them."""

from collections import Counter

import pytest

from sefar_core.data.datasets.diving48 import read_diving48
from sefar_core.data.datasets.hmdb51 import read_hmdb51
from sefar_core.data.datasets.ucf101 import read_ucf101
from sefar_core.data.leaks import overlap
from tests.annotations import annotations_folder

pytestmark = [pytest.mark.annotations, pytest.mark.slow]


def test_diving48_has_47_live_classes_and_shares_no_video():
    names = ("Diving48_vocab.json", "Diving48_V2_train.json", "Diving48_V2_test.json")
    listing = read_diving48(*(annotations_folder() / "diving48" / name for name in names))
    assert (len(listing.classes), len(listing.pool), len(listing.settled)) == (48, 15_027, 1_970)
    train, test = (Counter(clip.label for clip in part) for part in (listing.pool, listing.settled))
    assert set(range(48)) - train.keys() == set(range(48)) - test.keys() == {30}
    assert (min(train.values()), max(train.values())) == (33, 1_053)
    assert (min(test.values()), max(test.values())) == (2, 163)
    assert overlap(listing.pool, listing.settled)["sources"] == 0
    assert all(clip.source for clip in listing.pool)


@pytest.mark.parametrize(
    ("fold", "train", "test"), [(1, 9_537, 3_783), (2, 9_586, 3_734), (3, 9_624, 3_696)]
)
def test_ucf101_divides_its_13320_clips_by_groups(fold, train, test):
    listing = read_ucf101(annotations_folder() / "ucf101_official", fold=fold)
    assert (len(listing.classes), len(listing.pool), len(listing.settled)) == (101, train, test)
    assert overlap(listing.pool, listing.settled)["sources"] == 0
    assert listing.classes[36] == "Handstand Pushups"
    assert {clip.label for clip in listing.pool} == set(range(101))


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_hmdb51_has_70_training_and_30_test_clips_a_class(fold):
    lists = annotations_folder() / "hmdb51_splits"
    listing = read_hmdb51(lists, fold=fold, unused="unlabeled")
    assert len(listing.classes) == 51
    assert set(Counter(clip.label for clip in listing.pool).values()) == {70}
    per_split = Counter(clip.split for clip in listing.settled)
    assert per_split == {"test": 1_530, "unlabeled": 1_666}
    assert all(clip.source for clip in listing.pool)
