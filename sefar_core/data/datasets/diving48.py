"""Diving48 V2: 48 kinds of dives by takeoff, somersaults, twists and position.

Class 30 of V2 has a name and no clip, in either list. It stays a class, so that labels are those of
the lists. Source: svcl.ucsd.edu/projects/resound/dataset.html.
"""

from pathlib import Path

from qa_data.manifest import Clip
from sefar_core.data.datasets.records import (
    UNWRITABLE,
    ListError,
    Listing,
    read_list_json,
    refuse_repeat,
)


def read_diving48(vocab: Path, train: Path, test: Path) -> Listing:
    """The clips of Diving48 V2, each a file `<vid_name>.mp4` of its own.

    Args:
        vocab: Diving48_vocab.json, the four words of each class.
        train: Diving48_V2_train.json.
        test: Diving48_V2_test.json.

    Returns:
        Training clips as the pool, test clips as settled. `source` is the video that a clip was
        cut from, which no clip of the other list shares.

    Raises:
        ListError: a file is missing or not of this form, or a clip is listed twice.
    """
    classes = _classes(vocab)
    seen: dict[str, str] = {}
    return Listing(
        classes=classes,
        pool=_clips(train, "labeled", classes, seen),
        settled=_clips(test, "test", classes, seen),
    )


def _classes(path: Path) -> dict[int, str]:
    entries = _entries(path)
    for label, words in enumerate(entries):
        texts = words if isinstance(words, list) else [None]
        if not all(isinstance(word, str) and not UNWRITABLE.search(word) for word in texts):
            raise ListError(
                f"{path}, class {label}: found {words!r:.80}, not the words of a class, such as "
                f'["Back", "15som", "05Twis", "FREE"]; give Diving48_vocab.json'
            )
    names = [", ".join(words) for words in entries]
    for label, name in enumerate(names):
        if not name or name in names[:label]:
            raise ListError(
                f"{path}, class {label}: found the name {name!r}, which is empty or another "
                f"class's; fetch the file again"
            )
    return dict(enumerate(names))


def _clips(path: Path, split: str, classes: dict[int, str], seen: dict[str, str]) -> list[Clip]:
    clips = []
    for number, entry in enumerate(_entries(path)):
        where = f"{path}, entry {number}"
        name, label = _name_and_label(where, entry, len(classes))
        refuse_repeat(seen, name, where)
        clips.append(
            Clip(
                id=name,
                path=f"{name}.mp4",
                label=label,
                text=classes[label],
                source=name.rpartition("_")[0],
                split=split,
            )
        )
    return clips


def _name_and_label(where: str, entry: object, num_classes: int) -> tuple[str, int]:
    found = entry if isinstance(entry, dict) else {}
    name, label = found.get("vid_name"), found.get("label")
    if not isinstance(name, str) or not name.rpartition("_")[0] or not name.isprintable():
        raise ListError(
            f"{where}: found {entry!r:.120}, without a vid_name such as '-mmq0PT-u8k_00155'; give "
            f"Diving48_V2_train.json or Diving48_V2_test.json"
        )
    if "/" in name or "\\" in name:
        raise ListError(f"{where}: vid_name {name!r} is a path; it names a file without folders")
    if type(label) is not int or not 0 <= label < num_classes:
        raise ListError(
            f"{where}: found the label {label!r:.80}, not one of 0 to {num_classes - 1}; the list "
            f"and the vocabulary must be of the same version, V2"
        )
    return name, label


def _entries(path: Path) -> list:
    entries = read_list_json(path)
    if not isinstance(entries, list) or not entries:
        raise ListError(f"{path} does not hold a list of entries; fetch it again")
    return entries
