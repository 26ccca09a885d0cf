"""What a synthetic set holds: its settings, checked, and which clips are made from them.

Class frequencies are long-tailed, and no class makes up most of its event. A planned clip has a
class, a source, a time, and the side it is filmed from.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from qa_data.synthetic.clip import Without
from qa_data.synthetic.elements import ALL_CLASSES, DEMO_CLASSES, Element
from qa_data.synthetic.scene import EVENTS, Event

MIN_SIZE = 48
"""Smallest frame in pixels in which front and back of the figure can be distinguished."""

_ELEMENTS = {element.name: element for element in ALL_CLASSES}
_SELECTIONS = {"demo": DEMO_CLASSES, "all": ALL_CLASSES}
MAX_SHARE = 0.2
"""Largest share of a class in the clips of its event, where at least five classes share them."""
TAIL = 1.0
"""Exponent of the tail before the cap: the k-th class is as frequent as k ** -TAIL."""
Split = Literal["train", "val"]
SOURCE_ID_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
FPS = {25: 0.35, 30: 0.5, 50: 0.15}
"""Frames a second and how often a source has them."""
NUM_FRAMES = (24, 40)
NUM_FRAMES_AT_50_FPS = (40, 48)
MAX_CLIPS_PER_EVENT = 6
NUM_VAULT_STAGES = 3


@dataclass(frozen=True, kw_only=True)
class SyntheticSettings:
    """Settings of a synthetic set. The same settings give the same clips."""

    classes: tuple[str, ...] = ("demo",)
    """`demo`, `all`, or names of classes like `(FX) salto forward tucked`; labels follow them."""
    num_train: int = 2000
    """Clips in train_element.txt."""
    num_test: int = 360
    """Clips in val_element.txt, the official validation list, which serves as the test set."""
    num_train_sources: int = 24
    """Source videos (athlete and arena) of the training clips."""
    num_test_sources: int = 12
    """Source videos of the test clips, none of them a training source."""
    size: int = 72
    """Side of the square frames in pixels, even."""
    seed: int = 0
    """Random seed of all draws, at least 0."""
    without: Without | None = None
    """For controls: leave the figure, or figure and apparatus, out of the same clips."""
    only_test: bool = False
    """Render only the videos of the test list; the lists are complete anyway."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes is empty: choose demo, all, or at least one class by name")
        known = _SELECTIONS.keys() | _ELEMENTS.keys()
        if unknown := [name for name in self.classes if name not in known]:
            raise ValueError(
                f"classes holds {unknown[0]!r}, which names no class: choose demo, all, or "
                f"names from qa_data.synthetic.elements.ALL_CLASSES, like {min(_ELEMENTS)!r}"
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"classes names a class twice; name each once, got {self.classes}")
        if self.size < MIN_SIZE or self.size % 2:
            raise ValueError(
                f"size must be even and at least {MIN_SIZE} pixels, got {self.size}: H.264 stores "
                f"color in 2x2 blocks, and smaller figures cannot be read"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")
        self._check_counts()

    def _check_counts(self) -> None:
        for name in ("num_train", "num_test"):
            if getattr(self, name) < 2 * len(self.elements):
                raise ValueError(
                    f"{name} must be at least {2 * len(self.elements)}, two clips for each of the "
                    f"{len(self.elements)} classes, got {getattr(self, name)}"
                )
        for name in ("num_train_sources", "num_test_sources"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def elements(self) -> tuple[Element, ...]:
        """The classes, in the order of their labels."""
        chosen = (_SELECTIONS.get(name) or (_ELEMENTS[name],) for name in self.classes)
        return tuple(element for elements in chosen for element in elements)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Apparatus and text of each class, in the order of their labels."""
        return tuple(element.name for element in self.elements)


def class_counts(total: int, ranks: Sequence[int]) -> list[int]:
    """Clips of each class of one event: long-tailed by rank, capped, at least one each.

    Ranks are a permutation of 0, 1, ..., 0 being the most frequent. There are at least as many
    clips as classes. No count is above `MAX_SHARE` of the total unless there are fewer than five
    classes or the total is too small to be divided so.
    """
    num_classes = len(ranks)
    cap = max(int(MAX_SHARE * total), -(-total // num_classes))
    weights = (np.arange(num_classes) + 1.0) ** -TAIL
    counts = np.ones(num_classes, int)
    for _ in range(total - num_classes):
        lag = np.where(counts < cap, weights / counts, -1)
        counts[int(np.argmax(lag))] += 1
    return [int(counts[rank]) for rank in ranks]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A clip before it has a place in its source video."""

    number: int
    """Of all clips of the set; its pixels are a function of it and the settings."""
    label: int
    event: Event
    split: Split
    source: int
    faces_left: bool
    num_frames: int
    fps: int

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_frames / self.fps


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A clip and its place in its source video; times in seconds."""

    draft: Draft
    source_id: str
    event_span_s: tuple[float, float]
    """In the source video."""
    span_s: tuple[float, float]
    """From the start of the event."""

    @property
    def event_key(self) -> str:
        """Name of the event in FineGym's annotations."""
        return "E_{:06d}_{:06d}".format(*map(int, self.event_span_s))

    @property
    def segment_key(self) -> str:
        """Name of the sub-action in FineGym's annotations."""
        return "A_{:04d}_{:04d}".format(*map(int, self.span_s))

    @property
    def id(self) -> str:
        """FineGym's clip id; also the name of the video file."""
        return f"{self.source_id}_{self.event_key}_{self.segment_key}"

    @property
    def stages_s(self) -> list[list[float]]:
        """Stages of the sub-action from the start of the event: three for the vault, else one."""
        num_stages = NUM_VAULT_STAGES if self.draft.event == "VT" else 1
        edges = np.linspace(*self.span_s, num_stages + 1).round(3).tolist()
        return [[start, end] for start, end in zip(edges, edges[1:], strict=False)]


def plan_clips(settings: SyntheticSettings) -> list[PlannedClip]:
    """Every clip of the set in the order of the lists: training clips first, shuffled."""
    rng = np.random.default_rng([settings.seed, 1])
    num_sources = settings.num_train_sources + settings.num_test_sources
    fps = rng.choice(list(FPS), size=num_sources, p=list(FPS.values())).tolist()
    labels = _labels_in_order(settings, rng)
    drafts: list[Draft] = []
    for split, split_labels in labels.items():
        first = 0 if split == "train" else settings.num_train_sources
        last = settings.num_train_sources if split == "train" else num_sources
        sources = {
            label: _spread(split_labels.count(label), range(first, last), rng)
            for label in sorted(set(split_labels))
        }
        sides = {label: _spread(len(taken), range(2), rng) for label, taken in sources.items()}
        for label in split_labels:
            source = sources[label].pop()
            shortest, longest = NUM_FRAMES_AT_50_FPS if fps[source] == 50 else NUM_FRAMES
            drafts.append(
                Draft(
                    number=len(drafts),
                    label=label,
                    event=settings.elements[label].event,
                    split=split,
                    source=source,
                    faces_left=bool(sides[label].pop()),
                    num_frames=int(rng.integers(shortest, longest + 1)),
                    fps=fps[source],
                )
            )
    placed = [clip for source in range(num_sources) for clip in _place(source, drafts, rng)]
    return sorted(placed, key=lambda clip: clip.draft.number)


def _labels_in_order(
    settings: SyntheticSettings, rng: np.random.Generator
) -> dict[Split, list[int]]:
    """Labels of the clips of both lists, shuffled; a class is as popular in one as in the other."""
    elements = settings.elements
    events = [event for event in EVENTS if any(e.event == event for e in elements)]
    of_event = [[i for i, e in enumerate(elements) if e.event == event] for event in events]
    ranks = [rng.permutation(len(members)).tolist() for members in of_event]
    labels: dict[Split, list[int]] = {}
    totals: list[tuple[Split, int]] = [("train", settings.num_train), ("val", settings.num_test)]
    for split, total in totals:
        drawn: list[int] = []
        # Each event's clips are as many as an average class has for each of its classes.
        share, rest = divmod(total, len(elements))
        per_class = iter([share + (place < rest) for place in range(len(elements))])
        for members, rank in zip(of_event, ranks, strict=True):
            part = sum(islice(per_class, len(members)))
            for label, count in zip(members, class_counts(part, rank), strict=True):
                drawn += [label] * count
        labels[split] = rng.permutation(drawn).tolist()
    return labels


def _spread(count: int, values: range, rng: np.random.Generator) -> list[int]:
    """`count` values, each as often as any other (to within one), in random order."""
    rounds = -(-count // len(values))
    return np.concatenate([rng.permutation(values) for _ in range(rounds)])[:count].tolist()


def _place(source: int, drafts: list[Draft], rng: np.random.Generator) -> list[PlannedClip]:
    """The clips of one source, one event after the other, a few sub-actions in each."""
    waiting: dict[Event, list[Draft]] = defaultdict(list)
    for draft in drafts:
        if draft.source == source:
            waiting[draft.event].append(draft)
    source_id = "".join(rng.choice(list(SOURCE_ID_LETTERS), size=11))
    placed: list[PlannedClip] = []
    clock = rng.uniform(20, 90)
    while waiting:
        event = sorted(waiting)[int(rng.integers(len(waiting)))]
        routine = [waiting[event].pop(0) for _ in waiting[event][:MAX_CLIPS_PER_EVENT]]
        if not waiting[event]:
            del waiting[event]
        start = round(clock, 3)
        spans, end = _routine(routine, rng)
        clock = round(start + end, 3)
        placed += [
            PlannedClip(draft=draft, source_id=source_id, event_span_s=(start, clock), span_s=span)
            for draft, span in zip(routine, spans, strict=True)
        ]
        clock += rng.uniform(15, 60)
    return placed


def _routine(
    routine: list[Draft], rng: np.random.Generator
) -> tuple[list[tuple[float, float]], float]:
    """Spans of sub-actions at least a second apart, and the length of the event, in seconds."""
    spans, clock = [], 0.0
    for draft in routine:
        start = round(clock + rng.uniform(1, 5), 3)
        spans.append((start, round(start + draft.duration_s, 3)))
        clock = spans[-1][1]
    return spans, round(clock + rng.uniform(1, 3), 3)
