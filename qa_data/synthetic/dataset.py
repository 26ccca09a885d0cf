"""A set on disk: rendered in parallel, written whole or not at all."""

import json
import os
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from qa_data.atomic import write_text
from qa_data.children import without_interrupts
from qa_data.synthetic.clip import film, render_clip
from qa_data.synthetic.contact_sheet import contact_sheet, png_bytes
from qa_data.synthetic.lists import annotation_info, categories_text, element_list_text, sets_text
from qa_data.synthetic.plan import PlannedClip, plan_clips
from qa_data.synthetic.settings import SyntheticSettings
from qa_data.synthetic.source import make_source
from qa_data.synthetic.video_file import CODEC, CODEC_OPTIONS, write_video

RECORD_NAME = "synthetic.json"
RENDERER = 1
"""Raised whenever the same settings give other pictures."""


class SyntheticSetError(Exception):
    """A folder that a set cannot be written to. The message names it, its content and the mend."""


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
        SyntheticSetError: `out` holds something else, or a set of other settings.
        ValueError: `workers` is below 1.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if _holds_set(out, settings):
        return False
    out = out.resolve()
    partial_out = out.with_name(f".{out.name}.partial")
    if partial_out.exists():
        shutil.rmtree(partial_out)
    videos = partial_out / "videos"
    videos.mkdir(parents=True)
    clips = plan_clips(settings)
    _render_all(
        [clip for clip in clips if clip.draft.split == "val" or not settings.only_test],
        partial(_render_file, videos, settings),
        workers,
    )
    _write_lists(partial_out, clips, settings)
    os.replace(partial_out, out)
    return True


def _holds_set(out: Path, settings: SyntheticSettings) -> bool:
    """Whether the set is there already; refuses a folder of any other content."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / RECORD_NAME).is_file():
        raise SyntheticSetError(
            f"{out} exists and is no synthetic set (it has no {RECORD_NAME}): "
            f"choose another folder, or move it away"
        )
    try:
        found = json.loads((out / RECORD_NAME).read_bytes())
    except ValueError as cause:
        raise SyntheticSetError(
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
        raise SyntheticSetError(
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
        with without_interrupts():
            rendered = pool.map(render, clips, chunksize=8)
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
    (folder / "contact_sheet.png").write_bytes(png_bytes(sheet))
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
