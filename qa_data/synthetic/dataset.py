"""A set on disk: rendered in parallel, written whole or not at all.

Beside the videos it has FineGym's own file formats: categories, sets, element lists, annotations;
and one picture of all classes, with eight frames in time, all facing right.
"""

import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from qa_data.files import SefarError, new_folder, remove_drafts, write_text
from qa_data.synthetic.clip import CODEC, CODEC_OPTIONS, film, make_source, render_clip, write_video
from qa_data.synthetic.drawing import Picture
from qa_data.synthetic.elements import ALL_CLASSES, SETS, Element
from qa_data.synthetic.plan import PlannedClip, Split, SyntheticSettings, plan_clips
from qa_data.synthetic.scene import EVENTS
from qa_data.terminal import without_interrupts

NUM_MOMENTS = 8
ENLARGEMENT = 2
CAPTION_HEIGHT = 16
RECORD_NAME = "synthetic.json"
RENDERER = 1
"""Raised whenever the same settings give other pictures."""


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


def _row(element: Element, label: int, settings: SyntheticSettings) -> Picture:
    rng = np.random.default_rng([settings.seed, 3, label])
    filming = film(rng, num_frames=4 * NUM_MOMENTS, size=settings.size, faces_left=False)
    source = make_source(settings.seed, label % settings.num_train_sources, settings.size)
    frames = render_clip(element, filming, source, without=settings.without)[2::4]
    strip = np.hstack(list(frames))
    strip = np.repeat(np.repeat(strip, ENLARGEMENT, axis=0), ENLARGEMENT, axis=1)
    caption = np.full((CAPTION_HEIGHT, strip.shape[1], 3), 255, np.uint8)
    text = f"{label} {element.name}"
    cv2.putText(caption, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([caption, strip])


def contact_sheet(elements: Sequence[Element], settings: SyntheticSettings) -> Picture:
    """RGB picture with one row for each class."""
    return np.vstack([_row(element, label, settings) for label, element in enumerate(elements)])


def clip_frames(clip: PlannedClip, settings: SyntheticSettings) -> np.ndarray:
    """Frames (frame, height, width, 3), RGB: a function of the settings and the clip alone."""
    draft = clip.draft
    rng = np.random.default_rng([settings.seed, 2, draft.number])
    filming = film(
        rng, num_frames=draft.num_frames, size=settings.size, faces_left=draft.faces_left
    )
    source = make_source(settings.seed, draft.source, settings.size)
    return render_clip(settings.elements[draft.label], filming, source, without=settings.without)


def make_set(out: Path, settings: SyntheticSettings, *, workers: int = 1) -> bool:
    """Render a set into the folder `out`, or find it there.

    Args:
        out: the folder; it appears when everything in it is complete.
        settings: what to render.
        workers: processes; the files do not depend on their number.

    Returns:
        True if the set was rendered, False if `out` holds it already.

    Raises:
        SefarError: `out` holds something else, or a set of other settings; the processes do not
            start, or a picture cannot be encoded.
        WriteError: the disk is full, or refuses otherwise.
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if _holds_set(out, settings):
        return False
    out = out.resolve()
    remove_drafts(out.parent, out.name)
    clips = plan_clips(settings)
    with new_folder(out) as draft:
        videos = draft / "videos"
        videos.mkdir()
        _render_all(
            [clip for clip in clips if clip.draft.split == "val" or not settings.only_test],
            partial(_render_file, videos, settings),
            workers,
        )
        _write_lists(draft, clips, settings)
    return True


def _holds_set(out: Path, settings: SyntheticSettings) -> bool:
    """Whether the set is there already; refuses a folder of any other content."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / RECORD_NAME).is_file():
        raise SefarError(
            f"{out} exists and is not a synthetic set (it has no {RECORD_NAME}): "
            f"choose another folder, or move it away"
        )
    try:
        found = json.loads((out / RECORD_NAME).read_bytes())
    except ValueError as cause:
        raise SefarError(
            f"{out / RECORD_NAME} is damaged ({cause}); delete the folder, and render the set again"
        ) from cause
    wanted = _identity(settings)
    differing = sorted(
        name
        for name in wanted | found["made_from"]
        if found["made_from"].get(name) != wanted.get(name)
    )
    if differing:
        name = differing[0]
        raise SefarError(
            f"{out} holds a synthetic set of other settings: {name} is "
            f"{found['made_from'].get(name)!r} there and {wanted.get(name)!r} here; "
            f"choose another folder, ask for the settings in {RECORD_NAME}, or delete the folder"
        )
    return True


def _identity(settings: SyntheticSettings) -> dict:
    """All that the pictures depend on, as JSON gives it back."""
    return {**asdict(settings), "classes": list(settings.class_names), "renderer": RENDERER}


def _render_file(videos: Path, settings: SyntheticSettings, clip: PlannedClip) -> None:
    write_video(videos / f"{clip.id}.mp4", clip_frames(clip, settings), clip.draft.fps)


def _render_all(clips: list[PlannedClip], render: partial, workers: int) -> None:
    """Render every clip, showing progress on a terminal."""
    bar = partial(tqdm, total=len(clips), desc="rendering clips", unit="clip", disable=None)
    if workers == 1:
        for clip in bar(clips):
            render(clip)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        try:
            with without_interrupts():
                rendered = pool.map(render, clips, chunksize=8)
        except OSError as cause:
            raise SefarError(
                f"cannot start {workers} processes: {cause}; render with fewer workers"
            ) from cause
        try:
            for _ in bar(rendered):
                pass
        finally:
            pool.shutdown(cancel_futures=True)


def _write_lists(folder: Path, clips: list[PlannedClip], settings: SyntheticSettings) -> None:
    """The files beside the videos; the record is the last."""
    texts = {
        "categories.txt": categories_text(settings.elements),
        "set_categories.txt": sets_text(settings.elements),
        "train_element.txt": element_list_text(clips, "train"),
        "val_element.txt": element_list_text(clips, "val"),
        "annotation_info.json": annotation_info(clips),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    sheet = contact_sheet(settings.elements, settings)
    encoded, data = cv2.imencode(".png", sheet[..., ::-1])
    if not encoded:  # not an OSError, which would be a fault in writing
        raise SefarError(
            "OpenCV could not encode the contact sheet as PNG; is its PNG codec built in?"
        )
    (folder / "contact_sheet.png").write_bytes(data.tobytes())
    counts = {
        split: Counter(clip.draft.label for clip in clips if clip.draft.split == split)
        for split in ("train", "val")
    }
    record = {
        "made_from": _identity(settings),
        "counts": {
            split: {name: count[label] for label, name in enumerate(settings.class_names)}
            for split, count in counts.items()
        },
        "sources": {
            split: sorted({clip.source_id for clip in clips if clip.draft.split == split})
            for split in ("train", "val")
        },
        "video": {"codec": CODEC, **CODEC_OPTIONS},
        "versions": {name: version(name) for name in ("numpy", "opencv-python-headless", "av")},
    }
    write_text(folder / RECORD_NAME, json.dumps(record, indent=1) + "\n")
