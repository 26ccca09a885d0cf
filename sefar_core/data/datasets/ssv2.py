"""Something-Something v2: its label list and its training and validation lists.

Files: `labels.json` (`{"Approaching something with your camera": "0"}`; in older copies
`something-something-v2-labels.json`), `train.json` and `validation.json`
(`[{"id": "78687", "label": ..., "template": "Holding [something]", "placeholders": [...]}]`).
"""

import re
from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.datasets.records import (
    UNWRITABLE,
    ListError,
    Listing,
    read_list_json,
    refuse_repeat,
)


def read_ssv2(labels: Path, train: Path, validation: Path, *, suffix: str = ".webm") -> Listing:
    """Something-Something v2: the training clips as the pool, the validation clips as the test.

    The labels of the official test list are not public. A clip's class is its template without
    brackets; many classes differ only in direction from their mirror images ("from left to right").

    Args:
        labels: labels.json, classes with their numbers.
        train: train.json.
        validation: validation.json.
        suffix: how the names of the files, `<id>.webm`, end.

    Raises:
        ListError: a list is missing or does not follow its format, the class numbers have gaps, a
            template is not a class, or a clip is listed twice.
    """
    classes = _read_labels(labels)
    label_of = {text: label for label, text in classes.items()}
    seen: dict[str, str] = {}
    pool, test = (
        [
            Clip(id=one, path=one + suffix, label=label_of[text], text=text, split=split)
            for one, text in _read_clips(path, label_of, seen)
        ]
        for path, split in ((train, "labeled"), (validation, "test"))
    )
    return Listing(classes=classes, pool=pool, settled=test)


def _read_labels(path: Path) -> dict[int, str]:
    found = read_list_json(path)
    if not isinstance(found, dict):
        raise ListError(f'{path}: found {found!r:.60}; expected {{"class": "number", ...}}')
    classes: dict[int, str] = {}
    for text, number in found.items():
        label = int(number) if re.fullmatch("[0-9]{1,6}", str(number)) else None
        if label is None or label in classes or UNWRITABLE.search(text) or not text.strip():
            raise ListError(
                f"{path}: found {text!r}: {number!r:.60}; expected the name of a class and its "
                f"number, which no other class has"
            )
        classes[label] = text
    if gaps := sorted(set(range(len(classes))) - classes.keys()):
        raise ListError(
            f"{path} lists {len(classes)} classes, but none of number {gaps[0]}; number the "
            f"classes 0, 1, 2, ... without gaps, or fetch the list again"
        )
    return dict(sorted(classes.items()))


def _read_clips(
    path: Path, label_of: dict[str, int], seen: dict[str, str]
) -> list[tuple[str, str]]:
    """Ids and classes of a list's clips."""
    entries = read_list_json(path)
    if not isinstance(entries, list) or not entries:
        raise ListError(
            f"{path}: found {entries!r:.60}; expected a list of clips, each "
            f'{{"id": ..., "template": ...}}'
        )
    clips = []
    for number, entry in enumerate(entries, 1):
        where = f"{path}, entry {number}"
        clip_id, text = _entry(where, entry)
        if text not in label_of:
            raise ListError(
                f"{where}: the template {text!r:.200} of clip {clip_id} is not a class of the "
                f"label list; take all lists of one version"
            )
        refuse_repeat(seen, clip_id, where)
        clips.append((clip_id, text))
    return clips


def _entry(where: str, entry: object) -> tuple[str, str]:
    """Id and template of an entry, the template without brackets."""
    if isinstance(entry, dict):
        clip_id, template = str(entry.get("id")), entry.get("template")
        if re.fullmatch("[0-9]+", clip_id) and isinstance(template, str):
            return clip_id, template.replace("[", "").replace("]", "")
    raise ListError(
        f"{where}: found {entry!r:.100}; expected an object with a number as id and a template, "
        f"as train.json and validation.json have (the official test list has none)"
    )
