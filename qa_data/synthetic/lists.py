"""The set in FineGym's own file formats: categories, sets, element lists, annotations."""

import json
from collections.abc import Sequence

from qa_data.synthetic.elements import ALL_CLASSES, SETS, Element
from qa_data.synthetic.plan import PlannedClip, Split
from qa_data.synthetic.scene import EVENTS


def categories_text(elements: Sequence[Element]) -> str:
    """`categories.txt`: label, set, number among all elements of the package, and text."""
    return "".join(
        f"Clabel: {label:>3}; set: {element.set_id:>2}; "
        f"Glabel: {ALL_CLASSES.index(element):>3}; {element.name}\n"
        for label, element in enumerate(elements)
    )


def sets_text(elements: Sequence[Element]) -> str:
    """`set_categories.txt`: the sets that the elements belong to."""
    used = sorted({element.set_id for element in elements})
    return "".join(f"set: {set_id:>2}; {SETS[set_id]}\n" for set_id in used)


def element_list_text(clips: Sequence[PlannedClip], split: Split) -> str:
    """`train_element.txt` or `val_element.txt`: clip id and label."""
    return "".join(f"{clip.id} {clip.draft.label}\n" for clip in clips if clip.draft.split == split)


def annotation_info(clips: Sequence[PlannedClip]) -> str:
    """`annotation_info.json`: events and sub-actions of each source with their times."""
    sources: dict[str, dict] = {}
    for clip in clips:
        events = sources.setdefault(clip.source_id, {})
        event = events.setdefault(
            clip.event_key,
            {
                "event": EVENTS.index(clip.draft.event) + 1,
                "timestamps": [list(clip.event_span_s)],
                "segments": {},
            },
        )
        stages = clip.stages_s
        event["segments"][clip.segment_key] = {"stages": len(stages), "timestamps": stages}
    return json.dumps(sources, indent=1) + "\n"
