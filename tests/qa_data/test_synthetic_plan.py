"""A set is balanced where it must be, long-tailed where it may be, and written as FineGym is."""

import json
import re
from collections import Counter

import pytest

from qa_data.finegym import read_annotations, read_elements
from qa_data.synthetic.dataset import annotation_info, categories_text, element_list_text, sets_text
from qa_data.synthetic.plan import SyntheticSettings, class_counts, plan_clips
from qa_data.taxonomy import read_categories

SETTINGS = SyntheticSettings(classes=("all",), num_train=900, num_test=300, seed=5)
CLIPS = plan_clips(SETTINGS)
ID = re.compile(r"([\w-]{11})_E_(\d{6})_(\d{6})_A_(\d{4})_(\d{4})")


def of(split):
    return [clip for clip in CLIPS if clip.draft.split == split]


def test_ids_are_unique_written_as_in_finegym_and_planned_by_the_seed():
    small = SyntheticSettings(num_train=30, num_test=30, seed=6)
    assert plan_clips(small) == plan_clips(small)
    assert not {clip.id for clip in plan_clips(small)} & {clip.id for clip in CLIPS}
    assert len({clip.id for clip in CLIPS}) == len(CLIPS) == 1200
    for clip in CLIPS:
        source, *times = ID.fullmatch(clip.id).groups()
        event_start, event_end, start, end = map(int, times)
        assert source == clip.source_id
        assert event_start <= clip.event_span_s[0] < event_start + 1 <= event_end
        assert start <= clip.span_s[0] < start + 1 and end <= clip.span_s[1] < end + 1
        # As long as gymnasts take.
        assert 24 <= clip.draft.num_frames <= 48
        assert 0.79 <= clip.span_s[1] - clip.span_s[0] <= 1.61
        assert clip.draft.fps in (25, 30, 50)


def test_no_class_rules_its_event_and_each_is_in_both_lists_facing_left_in_half_of_its_clips():
    for split in ("train", "val"):
        labels = Counter(clip.draft.label for clip in of(split))
        assert len(labels) == len(SETTINGS.elements)
        left = Counter(clip.draft.label for clip in of(split) if clip.draft.faces_left)
        assert all(abs(2 * left[label] - count) <= 1 for label, count in labels.items())
        for event in ("VT", "FX", "BB", "UB"):
            members = [i for i, e in enumerate(SETTINGS.elements) if e.event == event]
            total = sum(labels[i] for i in members)
            counts = sorted(labels[i] for i in members)
            assert counts[-1] <= 0.2 * total
            assert counts[-1] > 2 * counts[0]


def test_train_and_test_share_no_source_and_sources_hold_many_classes():
    train, test = ({clip.source_id for clip in of(split)} for split in ("train", "val"))
    assert not train & test
    assert len(train) == SETTINGS.num_train_sources and len(test) == SETTINGS.num_test_sources
    for source in train | test:
        assert len({c.draft.label for c in CLIPS if c.source_id == source}) > 10


def test_sub_actions_of_an_event_do_not_overlap():
    events = {}
    for clip in CLIPS:
        events.setdefault((clip.source_id, clip.event_key), []).append(clip)
    for clips in events.values():
        spans = sorted(clip.span_s for clip in clips)
        assert all(a[1] < b[0] for a, b in zip(spans, spans[1:], strict=False))
        assert len({clip.draft.event for clip in clips}) == 1
        assert clips[0].event_span_s[0] + spans[-1][1] < clips[0].event_span_s[1]


def test_lists_and_annotations_are_read_as_finegyms(tmp_path):
    info, paths = annotation_info(CLIPS), [tmp_path / name for name in ("classes", "list", "times")]
    texts = (categories_text(SETTINGS.elements), element_list_text(CLIPS, "val"), info)
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    assert texts[0].startswith("Clabel:   0; set:  1; Glabel:   0; (VT) ")
    assert [(c.set_id, c.event, c.text) for c in read_categories(paths[0]).values()] == [
        (element.set_id, element.event, element.text) for element in SETTINGS.elements
    ]
    for line in sets_text(SETTINGS.elements).splitlines():
        assert re.fullmatch(r"set: [ \d]\d; \w+", line)
    listed = [(clip.id, clip.draft.label) for clip in of("val")]
    assert read_elements(paths[1]) == listed
    times, events = read_annotations(paths[2]), json.loads(info)
    for clip in CLIPS:
        start = clip.event_span_s[0]
        assert times[clip.id] == pytest.approx([start + one for one in clip.span_s], abs=2e-3)
        event = events[clip.source_id][clip.event_key]
        stages = event["segments"][clip.segment_key]
        assert event["event"] == {"VT": 1, "FX": 2, "BB": 3, "UB": 4}[clip.draft.event]
        assert event["timestamps"] == [list(clip.event_span_s)]
        assert stages["stages"] == len(stages["timestamps"]) == 3 - 2 * (event["event"] != 1)


@pytest.mark.parametrize("total", [11, 30, 100, 1001])
def test_counts_are_long_tailed_capped_and_complete(total):
    counts = class_counts(total, [2, 0, 1, 3, 4, 5])
    assert sum(counts) == total and min(counts) >= 1
    assert max(counts) <= max(0.2 * total, -(-total // 6))
    assert sorted(counts, reverse=True) == [counts[i] for i in (1, 2, 0, 3, 4, 5)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ()}, "classes is empty"),
        ({"classes": ("salto sideways",)}, "'salto sideways', which names no class"),
        ({"classes": ("demo", "(FX) salto forward tucked")}, "names a class twice"),
        ({"size": 40}, "at least 48"),
        ({"num_train": 10}, "num_train must be at least 24"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SyntheticSettings(**settings)
