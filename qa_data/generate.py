"""Clips, classes, a rule and a seed in; questions out.

The options of a clip depend on the seed, the clip's id and the pool (its classes and, for the
exchangeable rules, how many clips of each are asked about), not on the order of the clips. Which
letter an option gets is a second step. Under `public` the options are shuffled, as in the public
sets. Under the other rules the shuffled options are turned round besides, by as much as makes
every letter right equally often; that depends on the other questions, for a single one has no
balance.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qa_data.attribute_sets import family_designs
from qa_data.attributes import family_of
from qa_data.distractors import DISTRACTORS, POOLS, ClassPool, pool_of
from qa_data.manifest import Clip
from qa_data.pool_report import Common, PoolReport, pool_name, pool_reports, widened
from qa_data.question import STEM, Question, QuestionError
from qa_data.taxonomy import MIRROR_SETS, ElementClass

ATTRIBUTE = "attribute"
RULES = (*DISTRACTORS, ATTRIBUTE)
FALLBACK = "event_prior"  # of the clips that the grids of `attribute` leave over

Draws = list[tuple[Clip, random.Random]]
"""Clips, each with the generator that its question is drawn by."""
Wrong = list[list[int] | None]
"""Classes of the wrong options of each clip; none for a clip that is left out."""


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
    """One question for each clip, ids counting from 0000000.

    Args:
        clips: all with a class.
        classes: the class list that their labels count in.
        rule: one of RULES.
        seed: of all draws.
        num_options: options of a question, the right one among them.
        common: an exchangeable rule cannot bring a pool to chance in which one text is commoner
            than 1 / num_options (see `Common`). What shows fewer than num_options texts is left
            out in any case. Under `attribute`, what the grids leave over is left out
            (`leave_out`), or asked about by FALLBACK, from what is left over, with its pools kept
            as they are (`keep`) or widened until they are at chance (`widen`).

    Raises:
        QuestionError: there are no clips, or none is left, or a clip's class is missing or
            called otherwise in the class list.
        TooFewOptions: `public` or `distinct` with fewer classes than options.
    """
    check_clips(clips, classes)
    pool = pool_of(classes, [clip.label for clip in clips if clip.label is not None])
    draws = [(clip, random.Random(f"{seed}/{clip.id}")) for clip in clips]
    if rule == ATTRIBUTE:
        wrong, reports = _by_grids(draws, pool, num_options, common)
    else:
        wrong, reports = _by_pools(draws, pool, rule, num_options, common)
    kept = [(*draw, others) for draw, others in zip(draws, wrong, strict=True) if others]
    if not kept:
        left_out = ", ".join(report.pool for report in reports if not report.asked)
        raise QuestionError(
            f"rule {rule} with {num_options} options leaves none of {len(clips)} clips: in "
            f"{left_out} one text is too common, or there are too few; ask for fewer options, "
            f"take a wider rule, or keep or widen such pools"
        )
    questions = [
        _question(number, clip, [clip.label or 0, *others], classes, rng)
        for number, (clip, rng, others) in enumerate(kept)
    ]
    if rule != "public":
        questions = balance_letters(questions, seed)
    return QuestionSet(questions=questions, pools=reports)


def check_clips(clips: Sequence[Clip], classes: Mapping[int, ElementClass]) -> None:
    """Refuse clips that the class list does not know.

    Raises:
        QuestionError: there are no clips, or a clip's class is missing or called otherwise.
    """
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


def balance_letters(questions: Sequence[Question], seed: int) -> list[Question]:
    """The questions with options turned round so that each letter is right equally often, up to 1.

    Questions are ranked by numbers drawn from the seed and their videos; the first gets its right
    option at A, the second at B, and so on, among those with as many options.
    """
    drawn = [random.Random(f"{seed}/{one.video}/letter").random() for one in questions]
    turned = list(questions)
    seen: Counter[int] = Counter()
    for place in sorted(range(len(questions)), key=lambda place: drawn[place]):
        question = questions[place]
        size = len(question.options)
        turned[place] = _turned(question, seen[size] % size)
        seen[size] += 1
    return turned


def _by_pools(
    draws: Draws, pool: ClassPool, rule: str, num_options: int, common: Common
) -> tuple[Wrong, list[PoolReport]]:
    clips = [clip for clip, _ in draws]
    if rule not in POOLS:
        return [_wrong(clip, pool, rule, num_options, rng) for clip, rng in draws], []
    if common == "widen":
        pool = widened(pool, clips, rule, num_options)
    reports = pool_reports(pool, clips, rule, num_options, keep=common == "keep")
    left_out = {report.pool for report in reports if not report.asked}
    wrong = [
        None
        if pool_name(pool, clip, rule) in left_out
        else _wrong(clip, pool, rule, num_options, rng)
        for clip, rng in draws
    ]
    return wrong, reports


def _wrong(
    clip: Clip, pool: ClassPool, rule: str, num_options: int, rng: random.Random
) -> list[int]:
    return DISTRACTORS[rule](clip.label or 0, pool, num_options - 1, rng)


def _by_grids(
    draws: Draws, pool: ClassPool, num_options: int, common: Common
) -> tuple[Wrong, list[PoolReport]]:
    """Grids for as many clips as they can take at chance, FALLBACK for the others."""
    designs = family_designs(pool.classes, pool.num_clips, num_options)
    counts: Counter[int] = Counter()
    wrong: Wrong = []
    for clip, rng in draws:
        family = family_of(pool.classes[clip.label or 0])
        wrong.append(designs[family].others(clip.label or 0, rng))
        counts[family] += wrong[-1] is not None
    reports = [
        PoolReport(pool=_grids_name(family), clips=clips, asked=True, bound=1 / num_options)
        for family, clips in sorted(counts.items())
        if clips
    ]
    over = [place for place, others in enumerate(wrong) if others is None]
    left = {label: n for one in designs.values() for label, n in one.left_over().items()}
    rest, rest_reports = _by_pools(
        [draws[place] for place in over],
        replace(pool, num_clips=dict(sorted(left.items())), designs={}),
        FALLBACK,
        num_options,
        common,
    )
    if common == "leave_out":
        return wrong, [*reports, *(_rest_of(one, asked=False) for one in rest_reports)]
    for place, others in zip(over, rest, strict=True):
        wrong[place] = others
    return wrong, [*reports, *(_rest_of(one, asked=one.asked) for one in rest_reports)]


def _grids_name(family: int) -> str:
    other = MIRROR_SETS.get(family)
    return f"grids of set {family}" + (f" + {other}" if other else "")


def _rest_of(report: PoolReport, *, asked: bool) -> PoolReport:
    return replace(report, pool=f"{report.pool} beyond the grids", asked=asked)


def _question(
    number: int,
    clip: Clip,
    labels: list[int],
    classes: Mapping[int, ElementClass],
    rng: random.Random,
) -> Question:
    answer = labels[0]
    rng.shuffle(labels)
    return Question(
        question_id=f"{number:07d}",
        video=clip.id,
        stem=STEM,
        options=tuple(classes[label].text for label in labels),
        answer=labels.index(answer),
        label=answer,
        option_labels=tuple(labels),
        event=classes[answer].event,
        source=clip.source,
        frame_length=clip.num_frames,
    )


def _turned(question: Question, place: int) -> Question:
    """The question with its right option at `place`, the others following in their order."""
    by = question.answer - place
    labels = question.option_labels
    return replace(
        question,
        options=question.options[by:] + question.options[:by],
        option_labels=None if labels is None else labels[by:] + labels[:by],
        answer=place,
    )
