"""Element lists, annotation JSON and tables of times, turned into clips."""

import json
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qa_data.finegym import (
    AnnotationError,
    ClipId,
    TimeSpan,
    event_of,
    read_annotations,
    read_elements,
    read_times,
    source_of,
    times_of_clips,
    to_clips,
)
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder
from tests.oracles import finegym_lists as oracle

VAULT = "-a_E_0_A_0x_E_002681_002688_A_0000_0006"  # a source id that looks like a clip id
BARS = "0LtLS9wROrk_E_002407_002435_A_0003_0005"
CLASSES = {
    0: ElementClass(0, 1, 7, "VT", "handspring"),
    1: ElementClass(1, 41, 9, "UB", "giant circle"),
}


def listed(folder, text):
    path = folder / "elements.txt"
    path.write_bytes(text.encode())
    return path


def test_a_clip_id_is_cut_by_length_not_by_underscore():
    parsed = ClipId.parse(VAULT)
    assert parsed == ClipId("-a_E_0_A_0x", 2681, 2688, 0, 6)
    assert source_of(VAULT) == "-a_E_0_A_0x"
    assert event_of(VAULT) == "-a_E_0_A_0x_E_002681_002688"
    with pytest.raises(ValueError, match="'v_Rowing_g01' is not a FineGym clip id"):
        ClipId.parse("v_Rowing_g01")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        (f"{BARS} 1\n{BARS} 1\n", f"line 2: {BARS} is listed twice"),
        (f"{BARS} one\n", "line 1: found .* expected a clip id"),
        (f"{BARS} 1 2\n", "line 1: found"),
        (f"../../../../{BARS[12:]} 1", "line 1: found"),
    ],
)
def test_a_bad_element_list_is_refused(tmp_path, text, found):
    with pytest.raises(AnnotationError, match=found):
        read_elements(listed(tmp_path, text))


EVENT = '{"0LtLS9wROrk": {"E_002407_002435": %s}}'
SEGMENT = EVENT % '{"timestamps": [[1, 9]], "segments": %s}'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (EVENT % '{"segments": null}', "video 0LtLS9wROrk, E_002407_002435: timestamps are None"),
        (SEGMENT % '{"A3": {}}', "video 0LtLS9wROrk.*found 'A3'"),
        ('{"../../.././": {}}', "found '../../.././'"),
        (EVENT % '{"timestamps": [[1, 9]], "timestamps": [[2, 9]]}', "key 'timestamps' is twice"),
        (EVENT % '{"timestamps": [[1e999, 9]]}', r"timestamps are \[\[inf, 9\]\]"),
        (EVENT % ("[" * 100_000), "is not JSON: brackets are nested too deep"),
        ("[]", "holds no videos"),
    ],
)
def test_a_bad_annotation_is_named_by_its_keys(tmp_path, text, found):
    with pytest.raises(AnnotationError, match=f"elements.txt.*{found}"):
        read_annotations(listed(tmp_path, text))
    with pytest.raises(AnnotationError, match="no file .*absent.json"):
        read_times(tmp_path / "absent.json")


COLUMNS = "full_id,Subaction_start,Subaction_end\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"full_id,Subaction_start\n{BARS},1\n", "line 1: no column 'Subaction_end'"),
        (f"{COLUMNS}{BARS},1,soon\n", "line 2: .*'soon'"),
        (f"{COLUMNS}{BARS},1,2,3", "line 2: more or fewer cells"),
        (f"{COLUMNS}{BARS},1,1e999", "line 2: found .*inf"),
        (f"{COLUMNS}x,1,2", "line 2: found 'x'; expected a clip id"),
        (f"{COLUMNS}{BARS},1,2\r\n{BARS},1,2", f"line 3: {BARS} is listed twice"),
    ],
)
def test_a_bad_row_of_times_is_named_by_its_line(tmp_path, text, found):
    path = tmp_path / "times.csv"
    path.write_bytes(text.encode())
    with pytest.raises(AnnotationError, match=f"times.csv, {found}"):
        read_times(path)


def test_what_only_some_versions_have_is_passed_over(tmp_path):
    """FineGym-AQA adds scores, names and codes; v1.0 has events without `segments`."""
    found = {
        "0LtLS9wROrk": {
            "E_002407_002435": {
                "score": 13.2,
                "name": "A. B.",
                "event": 4,
                "timestamps": [[2407.04, 2435.28]],
                "segments": {"A_0003_0005": {"code": "3.2", "timestamps": [[3.45, 5.64]]}},
            },
            "E_003000_003010": {"timestamps": [[3000, 3010]]},
        }
    }
    assert read_annotations(listed(tmp_path, json.dumps(found))) == {
        BARS: TimeSpan(2410.49, 2412.68)
    }


SECONDS = st.integers(0, 9_000_000).map(lambda milliseconds: milliseconds / 1000)
NAMES = st.text("abAB01-_", min_size=11, max_size=11)


@st.composite
def routines(draw):
    """Invented routines with sub-actions of one to three stages, all clip ids different."""
    found = []
    for source in draw(st.lists(NAMES, max_size=3, unique=True)):
        start = draw(SECONDS)
        bounds = sorted(draw(st.lists(SECONDS, min_size=2, max_size=8, unique_by=int)))
        num_stages = draw(st.integers(1, 3))
        stages = list(pairwise(bounds))
        actions = [
            (stages[k : k + num_stages], draw(st.integers(0, 998)))
            for k in range(0, len(stages), num_stages)
        ]
        found.append(oracle.Routine(source, 4, start, start + 9000, actions))
    return found


@given(routines=routines(), end=st.sampled_from(["\n", "\r\n"]), bom=st.booleans())
def test_lists_and_times_come_back_as_they_were_written(tmp_path_factory, routines, end, bom):
    folder = tmp_path_factory.getbasetemp()
    clips = oracle.clips(routines)
    assume(clips)
    times = {clip_id: TimeSpan(start, finish) for clip_id, _, start, finish in clips}
    mark = "\ufeff" * bom
    assert read_annotations(listed(folder, mark + oracle.annotation_json(routines))) == times
    table = folder / "times.CSV"
    table.write_bytes((mark + oracle.timestamp_csv(routines)).encode())
    assert read_times(table) == times
    elements = read_elements(listed(folder, (mark + oracle.element_list(routines, end)).rstrip()))
    assert elements == [(clip_id, label) for clip_id, label, _, _ in clips]
    assert list(times_of_clips([clip_id for clip_id, _ in elements], times)) == list(times)


def test_clips_are_files_of_their_own_or_parts_of_the_full_video():
    (trimmed,) = to_clips([(BARS, 1)], CLASSES, split="test")
    assert trimmed == Clip(
        id=BARS,
        path=f"{BARS}.mp4",
        label=1,
        text="giant circle",
        event="UB",
        source="0LtLS9wROrk",
        split="test",
    )
    (part,) = to_clips([(BARS, 1)], CLASSES, split="test", times={BARS: TimeSpan(2410.77, 2412.96)})
    assert (part.path, part.start_s, part.end_s) == ("0LtLS9wROrk.mp4", 2410.77, 2412.96)
    # A bad time of a clip that nobody asks for is no error.
    times = {BARS: TimeSpan(2410.77, 2412.96), VAULT: TimeSpan(9, 3)}
    assert to_clips([(BARS, 1)], CLASSES, split="test", times=times) == [part]


@pytest.mark.parametrize(
    ("elements", "times", "found"),
    [
        ([(BARS, 2)], None, "label 2, but the class list ends at 1"),
        ([(VAULT, 0), (BARS, 1)], {VAULT: (0, 1)}, f"1 of 2 clips have no times.*first {BARS}"),
        ([(BARS, 1)], {BARS: (2.5, 2.5)}, f"clip {BARS} is annotated from 2.5 to 2.5 s"),
        ([(BARS, 1)], {BARS: (3.45, 5.64)}, "5.64 s, but its name says 2410 to 2412 s"),
    ],
)
def test_labels_without_class_and_clips_without_times_are_refused(elements, times, found):
    spans = times and {name: TimeSpan(*span) for name, span in times.items()}
    with pytest.raises(AnnotationError, match=found):
        to_clips(elements, CLASSES, split="test", times=spans)


@pytest.mark.lists
def test_the_names_of_the_real_clips_are_their_times_cut_to_seconds():
    folder = finegym_folder()
    elements = read_elements(folder / "gym99_val_element.txt")
    times = read_times(folder / "timestamps" / "val99.csv")
    classes = read_categories(folder / "gym99_categories.txt")
    clips = to_clips(elements, classes, split="test", times=times)
    assert len(clips) == 8521
    for clip in clips:
        name = ClipId.parse(clip.id)
        assert abs(clip.start_s - name.event_start - name.start) < 2
        assert 0 < clip.end_s - clip.start_s < 30
