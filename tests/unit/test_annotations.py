"""Element lists, annotation JSON and tables of times, turned into clips."""

import json

import pytest

from qa_data.annotations import (
    AnnotationError,
    ClipId,
    Interval,
    event_of,
    read_annotations,
    read_elements,
    read_times,
    source_of,
    to_clips,
)
from qa_data.manifest import Clip
from qa_data.taxonomy import ElementClass, read_categories
from tests.finegym import finegym_folder

VAULT = "-a_E_0_A_0x_E_002681_002688_A_0000_0006"  # a source id that looks like a clip id
BARS = "0LtLS9wROrk_E_002407_002435_A_0003_0005"
CLASSES = {
    0: ElementClass(0, 1, 7, "VT", "handspring"),
    1: ElementClass(1, 41, 9, "UB", "giant circle"),
}
ANNOTATIONS = {
    "-a_E_0_A_0x": {
        "E_002681_002688": {
            "event": 1,
            "segments": {
                "A_0000_0006": {"stages": 3, "timestamps": [[0.04, 3.2], [3.2, 4.49], [4.49, 6.57]]}
            },
            "timestamps": [[2681.88, 2688.48]],
        }
    },
    "0LtLS9wROrk": {
        "E_002407_002435": {
            "event": 4,
            "timestamps": [[2407.32, 2435.28]],
            "segments": {"A_0003_0005": {"stages": 1, "timestamps": [[3.45, 5.64]]}},
        },
        "E_003000_003010": {"event": 4, "timestamps": [[3000.5, 3010.0]], "segments": None},
    },
}


def annotated(folder, content=ANNOTATIONS):
    path = folder / "annotation.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def listed(folder, text):
    path = folder / "elements.txt"
    path.write_bytes(text.encode())
    return path


def test_a_clip_id_is_cut_by_length_not_by_underscore():
    parsed = ClipId.parse(VAULT)
    assert parsed == ClipId("-a_E_0_A_0x", 2681, 2688, 0, 6)
    assert str(parsed) == VAULT
    assert source_of(VAULT) == "-a_E_0_A_0x"
    assert event_of(VAULT) == "-a_E_0_A_0x_E_002681_002688"
    with pytest.raises(ValueError, match="'v_Rowing_g01' is no FineGym clip id"):
        ClipId.parse("v_Rowing_g01")


def test_elements_keep_their_order_and_forgive_windows_and_a_missing_line_end(tmp_path):
    path = listed(tmp_path, f"{VAULT} 0\r\n\r\n{BARS} 1")
    assert read_elements(path) == [(VAULT, 0), (BARS, 1)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "is empty"),
        (f"{BARS} 1\n{BARS} 1\n", f"line 2: {BARS} is listed twice"),
        (f"{BARS} one\n", "line 1: found .* expected a clip id"),
        (f"{BARS}\n", "line 1: found"),
        (f"{BARS} 1 2\n", "line 1: found"),
        (f"/videos/{BARS}.mp4 1\n", "line 1: found"),
    ],
)
def test_a_bad_element_list_is_refused(tmp_path, text, found):
    with pytest.raises(AnnotationError, match=found):
        read_elements(listed(tmp_path, text))


def test_times_count_from_the_event_and_a_vault_spans_its_stages(tmp_path):
    assert read_annotations(annotated(tmp_path)) == {
        VAULT: Interval(2681.92, 2688.45),
        BARS: Interval(2410.77, 2412.96),
    }


@pytest.mark.parametrize(
    ("event", "found"),
    [
        ({"segments": None}, "E_002407_002435: timestamps are None"),
        ({"timestamps": [[1.0]]}, r"E_002407_002435: timestamps are \[\[1.0\]\]"),
        ({"timestamps": [[1, 9]], "segments": {"A_0003_0005": {"timestamps": []}}}, "A_0003_0005"),
        ({"timestamps": [[1, 9]], "segments": {"A3": {}}}, "found 'A3'"),
        ([], r"found 'E_002407_002435': \[\]"),
    ],
)
def test_a_bad_annotation_is_named_by_its_keys(tmp_path, event, found):
    path = annotated(tmp_path, {"0LtLS9wROrk": {"E_002407_002435": event}})
    with pytest.raises(AnnotationError, match=f"video 0LtLS9wROrk.*{found}"):
        read_annotations(path)


def test_files_that_are_no_annotation_are_refused(tmp_path):
    with pytest.raises(AnnotationError, match="no file .*absent.json"):
        read_times(tmp_path / "absent.json")
    with pytest.raises(AnnotationError, match="is not JSON"):
        read_times(listed(tmp_path, "{"))
    with pytest.raises(AnnotationError, match="holds no videos"):
        read_times(annotated(tmp_path, []))


def test_a_table_of_times_is_read_by_its_suffix(tmp_path):
    path = tmp_path / "times.csv"
    path.write_text(
        f"full_id,class,Subaction_start,Subaction_end\n{BARS},1,2410.7700000000004,2412.96\n",
        encoding="utf-8",
    )
    assert read_times(path) == {BARS: Interval(2410.77, 2412.96)}
    path.write_text(f"full_id,Subaction_start\n{BARS},1\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match="no column 'Subaction_end'"):
        read_times(path)
    path.write_text("full_id,Subaction_start,Subaction_end\nx,1,soon\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match="line 2: .*'soon'"):
        read_times(path)


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
    (part,) = to_clips([(BARS, 1)], CLASSES, split="test", times={BARS: Interval(1.5, 2.5)})
    assert (part.path, part.start_s, part.end_s) == ("0LtLS9wROrk.mp4", 1.5, 2.5)


def test_labels_without_class_and_clips_without_times_are_refused():
    with pytest.raises(AnnotationError, match="label 2, but the class list ends at 1"):
        to_clips([(BARS, 2)], CLASSES, split="test")
    with pytest.raises(AnnotationError, match=f"1 of 2 clips have no times.*first {BARS}"):
        to_clips([(VAULT, 0), (BARS, 1)], CLASSES, split="test", times={VAULT: Interval(0, 1)})
    with pytest.raises(AnnotationError, match=f"clip {BARS} is annotated from 2.5 to 2.5 s"):
        to_clips([(BARS, 1)], CLASSES, split="test", times={BARS: Interval(2.5, 2.5)})


def test_a_bad_time_of_a_clip_that_nobody_asks_for_is_no_error():
    times = {BARS: Interval(1, 2), VAULT: Interval(9, 3)}
    assert len(to_clips([(BARS, 1)], CLASSES, split="test", times=times)) == 1


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
        assert str(name) == clip.id
        assert abs(clip.start_s - name.event_start - name.start) < 2
        assert 0 < clip.end_s - clip.start_s < 30
