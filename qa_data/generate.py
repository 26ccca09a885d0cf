"""Clips, classes, a rule and a seed in; questions out.

The options of a clip depend on the seed, the clip's id and the pool (its classes and, for the
exchangeable rules, how many clips of each are asked about), not on the order of the clips.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qa_data.distractors import DISTRACTORS, POOLS, ClassPool, TooFewOptions, pool_of
from qa_data.manifest import Clip
from qa_data.question import STEM, Question, QuestionError
from qa_data.taxonomy import ElementClass

Common = Literal["leave_out", "keep", "widen"]


@dataclass(frozen=True, kw_only=True)
class PoolReport:
    """What became of the clips of one pool."""

    pool: str
    clips: int
    asked: bool
    """Whether questions were made of them."""
    bound: float | None
    """Share that the best blind rule gets right; none if the pool has too few texts."""


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions in the order of their clips, and what is known of answering them blind."""

    questions: Sequence[Question]
    pools: Sequence[PoolReport]
    """One for each pool of an exchangeable rule; empty for the others."""

    @property
    def bound(self) -> float | None:
        """Share of the questions that the best blind rule gets right; none if not known."""
        asked = [pool for pool in self.pools if pool.asked and pool.bound is not None]
        if not asked:
            return None
        clips = sum(pool.clips for pool in asked)
        return sum(pool.clips * (pool.bound or 0) for pool in asked) / clips


def build_questions(
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    rule: str,
    seed: int,
    num_options: int = 4,
    common: Common = "leave_out",
) -> QuestionSet:
    """One question for each clip, options shuffled, ids counting from 0000000.

    Args:
        clips: all with a class.
        classes: the class list that their labels count in.
        rule: a key of DISTRACTORS.
        seed: of all draws.
        num_options: options of a question, the right one among them.
        common: an exchangeable rule cannot bring a pool to chance in which one text is commoner
            than 1 / num_options. Its clips are left out (`leave_out`), kept at the bound that the
            report states (`keep`), or such pools become one, joined by as many others as it
            takes (`widen`). What shows fewer than num_options texts even so is left out.

    Raises:
        QuestionError: there are no clips, or none is left, or a clip's class is missing or
            called otherwise in the class list.
        TooFewOptions: `public` or `distinct` with fewer classes than options.
    """
    _check_clips(clips, classes)
    pool = pool_of(classes, [clip.label for clip in clips if clip.label is not None])
    if common == "widen" and rule in POOLS:
        pool = _widened(pool, rule, num_options)
    reports = _pool_reports(pool, rule, num_options, keep=common == "keep")
    left_out = {report.pool for report in reports if not report.asked}
    kept = [clip for clip in clips if _pool_name(pool, clip, rule) not in left_out]
    if not kept:
        raise QuestionError(
            f"rule {rule} with {num_options} options leaves none of {len(clips)} clips: in "
            f"{', '.join(sorted(left_out))} one text is too common, or there are too few; ask "
            f"for fewer options, take a wider rule, or keep or widen such pools"
        )
    questions = [
        _question(number, clip, pool, rule=rule, seed=seed, num_options=num_options)
        for number, clip in enumerate(kept)
    ]
    return QuestionSet(questions=questions, pools=reports)


def _check_clips(clips: Sequence[Clip], classes: Mapping[int, ElementClass]) -> None:
    if not clips:
        raise QuestionError("there are no clips to ask about; is the split empty?")
    for clip in clips:
        if clip.label is None or clip.label not in classes:
            raise QuestionError(
                f"clip {clip.id} has class {clip.label}, which is not among the {len(classes)} "
                f"classes of the list; take manifest and class list of one benchmark"
            )
        if clip.text not in (None, classes[clip.label].text):
            raise QuestionError(
                f"clip {clip.id} is called {clip.text!r}, but class {clip.label} of the list is "
                f"{classes[clip.label].text!r}; take manifest and class list of one benchmark"
            )


def _pool_name(pool: ClassPool, clip: Clip, rule: str) -> str | None:
    return pool.name(clip.label or 0, POOLS[rule]) if rule in POOLS else None


def _pool_reports(pool: ClassPool, rule: str, num_options: int, *, keep: bool) -> list[PoolReport]:
    if rule not in POOLS:
        return []
    clips: Counter[str] = Counter()
    member = {}
    for label, count in pool.num_clips.items():
        name = pool.name(label, POOLS[rule])
        clips[name] += count
        member[name] = label
    reports = []
    for name, label in sorted(member.items()):
        bound = _bound(pool, label, rule, num_options)
        asked = bound is not None and (keep or bound < 1 / num_options + 1e-9)
        reports.append(PoolReport(pool=name, clips=clips[name], asked=asked, bound=bound))
    return reports


def _bound(pool: ClassPool, label: int, rule: str, num_options: int) -> float | None:
    try:
        return pool.design(label, num_options, POOLS[rule]).bound
    except TooFewOptions:
        return None


def _widened(pool: ClassPool, rule: str, num_options: int) -> ClassPool:
    """The pools that cannot be at chance made one, with the smallest others until it can."""
    reports = _pool_reports(pool, rule, num_options, keep=False)
    joined = [report.pool for report in reports if not report.asked]
    spare = sorted((report.clips, report.pool) for report in reports if report.asked)
    if not joined:
        return pool
    widened = pool.merge(joined)
    while spare and not all(
        report.asked for report in _pool_reports(widened, rule, num_options, keep=False)
    ):
        joined.append(spare.pop(0)[1])
        widened = pool.merge(joined)
    return widened


def _question(
    number: int, clip: Clip, pool: ClassPool, *, rule: str, seed: int, num_options: int
) -> Question:
    rng = random.Random(f"{seed}/{clip.id}")
    answer = clip.label
    assert answer is not None  # _check_clips
    labels = [answer, *DISTRACTORS[rule](answer, pool, num_options - 1, rng)]
    rng.shuffle(labels)
    return Question(
        question_id=f"{number:07d}",
        video=clip.id,
        stem=STEM,
        options=tuple(pool.classes[label].text for label in labels),
        answer=labels.index(answer),
        label=answer,
        option_labels=tuple(labels),
        event=pool.classes[answer].event,
        source=clip.source,
        frame_length=clip.num_frames,
    )
