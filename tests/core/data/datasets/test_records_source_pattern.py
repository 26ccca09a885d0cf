"""Sources that the names of files tell, by a pattern of the user's."""

from unicodedata import normalize

import pytest

from qa_data.manifest import Clip
from sefar_core.data.datasets.records import ListError, Listing, with_sources


def clip(path, split="labeled", source=""):
    return Clip(id=path, path=path, label=0, source=source, split=split)


LISTING = Listing(
    classes={0: "wave"},
    pool=[clip("x_s9_class/a1_s3_t2_color.avi"), clip("/data/wave/a1_s12_t1_color.avi")],
    settled=[clip("wave\\a2_s3_t1_color.avi", "test", source="wrong"), clip("x/a_s5_frames")],
)


def test_the_group_is_the_source_and_folders_tell_nothing():
    found = with_sources(LISTING, r"_s([0-9]+)_")
    assert [one.source for one in found.pool] == ["3", "12"]
    assert [one.source for one in found.settled] == ["3", "5"]
    assert found.classes == LISTING.classes
    assert [one.path for one in found.pool] == [one.path for one in LISTING.pool]


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("_s([0-9]+", r"'_s\(\[0-9\]\+' is not a valid regular expression"),
        ("_s[0-9]+_", "has 0 groups"),
        ("_s([0-9])([0-9])", "has 2 groups"),
        ("_color_([0-9]+)", "finds no source in the name of x_s9_class/a1_s3_t2_color.avi"),
        ("_t([0-9])|color", "no source in the name of x/a_s5_frames"),
        ("_t(?:[0-9])|(x?)", "a1_s3_t2_color.avi"),
    ],
)
def test_a_pattern_that_fits_no_file_or_has_not_one_group_is_refused(pattern, told):
    with pytest.raises(ListError, match=told):
        with_sources(LISTING, pattern)


def test_a_source_is_the_same_however_its_letters_are_composed():
    names = [f"Müller_{n}.mp4" for n in range(2)]
    paths = [normalize("NFD", names[0]), normalize("NFC", names[1])]
    clips = [Clip(id=path, path=path, split="unlabeled") for path in paths]
    for form in ("NFC", "NFD"):
        found = with_sources(Listing(classes={}, pool=clips), normalize(form, "^(Müller|Kim)_"))
        assert {clip.source for clip in found.pool} == {normalize("NFC", "Müller")}
