"""Clips, classes, a rule and a seed in; questions out.

`build_questions` asks which move each clip shows. The options of a clip depend on the seed, the
clip's id and the pool (its classes and, for the exchangeable rules, how many clips of each get a
question), not on the order of the clips. Which letter an option gets is a second step. Under
`public` the options are shuffled, as in the public sets. Under the other rules the shuffled options
are rotated as well, such that every letter is right equally often; that depends on the other
questions, since a single one has no balance.

`resample_distractors` gives training questions other wrong options in every epoch: stem, right
answer and clip stay, and the options beside the answer are drawn again by a rule of the builder.
Under `hard` the options of every epoch are exchangeable, so that no epoch teaches which answer is
likely. `paraphrase` varies the stem.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from qa_data.attributes import family_of
from qa_data.balanced_design import family_designs
from qa_data.distractors import DISTRACTORS, OTHER_NAMES, POOLS, ClassPool, TooFewOptions, pool_of
from qa_data.manifest import Clip
from qa_data.questions import STEM, Question, QuestionError
from qa_data.taxonomy import MIRROR_SETS, ElementClass

Common = Literal["leave_out", "keep", "widen"]
"""What becomes of a pool that cannot be asked about at chance: its clips are left out, or kept at
the bound that its report states, or such pools become one, joined by as many others as it takes."""


@dataclass(frozen=True, kw_only=True)
class PoolReport:
    """What became of the clips of one pool of classes."""

    pool: str
    clips: int
    asked: bool
    """Whether questions were made of them."""
    bound: float | None
    """Share that the best blind rule gets right; none if the pool has too few texts."""


ATTRIBUTE = "attribute"
RULES = (*DISTRACTORS, ATTRIBUTE)
FALLBACK = "event_prior"  # of the clips that the grids of `attribute` leave over

SeededClips = list[tuple[Clip, random.Random]]
"""Clips, each with the generator of its question."""
Wrong = list[list[int] | None]
"""Classes of the wrong options of each clip; none for a clip that is left out."""


@dataclass(frozen=True, kw_only=True)
class QuestionSet:
    """Questions in the order of their clips, and how far they can be answered blind."""

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
    """One question for each clip by one of RULES, ids counting from 0000000.

    An exchangeable rule cannot bring a pool to chance in which one text is commoner than
    1 / num_options: `common` says what becomes of it. What shows fewer than num_options texts is
    left out in any case. Under `attribute`, what the grids leave over is left out (`leave_out`),
    or asked about by FALLBACK, from what is left over, with its pools kept as they are (`keep`) or
    widened until they are at chance (`widen`).

    Raises:
        QuestionError: there are no clips, or none is left, or a clip's class is missing or
            called otherwise in the class list.
        TooFewOptions: `public` or `distinct` with fewer classes than options.
    """
    check_classes(clips, classes)
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
            f"{left_out} one text is too common, or there are too few; take fewer options or a "
            f"wider rule, or keep or widen such pools"
        )
    questions = [
        _question(number, clip, [clip.label or 0, *others], classes, rng)
        for number, (clip, rng, others) in enumerate(kept)
    ]
    if rule != "public":
        questions = balance_letters(questions, seed)
    return QuestionSet(questions=questions, pools=reports)


def check_classes(clips: Sequence[Clip], classes: Mapping[int, ElementClass]) -> None:
    """Refuse clips that the class list does not know.

    Raises:
        QuestionError: there are no clips, or a clip's class is missing or named otherwise.
    """
    if not clips:
        raise QuestionError("there are no clips for questions; is the split empty?")
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
    """The questions with rotated options, so that each letter is right equally often, up to 1.

    Questions are ranked by numbers drawn from the seed and their videos; the first gets its right
    option at A, the second at B, and so on, among those with as many options.
    """
    drawn = [random.Random(f"{seed}/{one.video}/letter").random() for one in questions]
    rotated = list(questions)
    seen: Counter[int] = Counter()
    for place in sorted(range(len(questions)), key=lambda place: drawn[place]):
        question = questions[place]
        size = len(question.options)
        rotated[place] = _rotated(question, seen[size] % size)
        seen[size] += 1
    return rotated


def _by_pools(
    draws: SeededClips, pool: ClassPool, rule: str, num_options: int, common: Common
) -> tuple[Wrong, list[PoolReport]]:
    clips = [clip for clip, _ in draws]
    draw, count = DISTRACTORS[rule], num_options - 1
    if rule not in POOLS:
        return [draw(clip.label or 0, pool, count, rng) for clip, rng in draws], []
    if common == "widen":
        pool = _widened(pool, clips, rule, num_options)
    reports = _pool_reports(pool, clips, rule, num_options, keep=common == "keep")
    left_out = {report.pool for report in reports if not report.asked}
    wrong = [
        None
        if _pool_name(pool, clip, rule) in left_out
        else draw(clip.label or 0, pool, count, rng)
        for clip, rng in draws
    ]
    return wrong, reports


def _by_grids(
    draws: SeededClips, pool: ClassPool, num_options: int, common: Common
) -> tuple[Wrong, list[PoolReport]]:
    """Grids for as many clips as they can take at chance, FALLBACK for the others."""
    designs = family_designs(pool.classes, pool.num_clips, num_options)
    counts: Counter[int] = Counter()
    wrong: Wrong = []
    for clip, rng in draws:
        family = family_of(pool.classes[clip.label or 0])
        wrong.append(designs[family].others(clip.label or 0, rng))
        counts[family] += wrong[-1] is not None
    reports = []
    for family, clips in sorted(counts.items()):
        other = f" + {MIRROR_SETS[family]}" if family in MIRROR_SETS else ""
        name = f"grids of set {family}{other}"
        if clips:
            reports.append(PoolReport(pool=name, clips=clips, asked=True, bound=1 / num_options))
    over = [place for place, others in enumerate(wrong) if others is None]
    left = {label: n for one in designs.values() for label, n in one.left_over().items()}
    rest, rest_reports = _by_pools(
        [draws[place] for place in over],
        replace(pool, num_clips=dict(sorted(left.items())), designs={}),
        FALLBACK,
        num_options,
        common,
    )
    keep = common != "leave_out"
    if keep:
        for place, others in zip(over, rest, strict=True):
            wrong[place] = others
    beyond = [
        replace(one, pool=f"{one.pool} beyond the grids", asked=keep and one.asked)
        for one in rest_reports
    ]
    return wrong, [*reports, *beyond]


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


def _rotated(question: Question, place: int) -> Question:
    """The question with its right option at `place`, the others following in their order."""
    by = question.answer - place
    labels = question.option_labels
    return replace(
        question,
        options=question.options[by:] + question.options[:by],
        option_labels=None if labels is None else labels[by:] + labels[:by],
        answer=place,
    )


def _pool_name(pool: ClassPool, clip: Clip, rule: str) -> str:
    assert clip.label is not None  # questions are built of labeled clips
    return pool.name(clip.label, POOLS[rule])


def _pool_reports(
    pool: ClassPool, clips: Sequence[Clip], rule: str, num_options: int, *, keep: bool
) -> list[PoolReport]:
    """A report for each pool, by name; `keep` asks about those that cannot be at chance, too."""
    counts: Counter[str] = Counter()
    member = {}
    for clip in clips:
        name = _pool_name(pool, clip, rule)
        counts[name] += 1
        member[name] = clip.label
    reports = []
    for name, label in sorted(member.items()):
        try:
            bound = pool.design(label or 0, num_options, POOLS[rule]).bound
        except TooFewOptions:
            bound = None
        asked = bound is not None and (keep or bound < 1 / num_options + 1e-9)
        reports.append(PoolReport(pool=name, clips=counts[name], asked=asked, bound=bound))
    return reports


def _widened(pool: ClassPool, clips: Sequence[Clip], rule: str, num_options: int) -> ClassPool:
    """The pools that cannot be at chance made one, with the smallest others until it can."""
    reports = _pool_reports(pool, clips, rule, num_options, keep=False)
    joined = [report.pool for report in reports if not report.asked]
    spare = sorted((report.clips, report.pool) for report in reports if report.asked)
    if not joined:
        return pool
    wide = pool.merge(joined)
    while spare and not all(
        report.asked for report in _pool_reports(wide, clips, rule, num_options, keep=False)
    ):
        joined.append(spare.pop(0)[1])
        wide = pool.merge(joined)
    return wide


def resample_distractors(
    questions: Sequence[Question],
    clips: Sequence[Clip],
    classes: Mapping[int, ElementClass],
    *,
    rule: str,
    seed: int,
) -> Callable[[int], list[Question]]:
    """A function from the epoch to the same questions, in order, each epoch with its own options.

    An epoch's options are a function of (seed, epoch, clip), and of which clips have questions.
    Questions are one a clip, about which move it is; the rule is one of RULES or of OTHER_NAMES.

    Raises:
        QuestionError: two questions are about one clip, a clip is missing or has no class, the
            numbers of options differ, or the right option is not the text of the clip's class.
        TooFewOptions: the rule finds too few wrong options.
    """
    size = _only_size(questions)
    wanted = {question.video for question in questions}
    chosen = [clip for clip in clips if clip.id in wanted]
    if lost := sorted(wanted - {clip.id for clip in chosen}):
        raise QuestionError(
            f"{len(lost)} of {len(wanted)} clips are not in the manifest, the first is {lost[0]}; "
            f"take questions and manifest of one set"
        )

    def draw(epoch: int) -> list[Question]:
        epoch_seed = random.Random(f"{seed}/{epoch}/redraw").getrandbits(48)
        built = build_questions(
            chosen,
            classes,
            rule=OTHER_NAMES.get(rule, rule),
            seed=epoch_seed,
            num_options=size,
            common="keep",
        )
        of_clip = {one.video: one for one in built.questions}
        return [_with_options(question, of_clip.get(question.video)) for question in questions]

    return draw


def _only_size(questions: Sequence[Question]) -> int:
    clip, count = Counter(question.video for question in questions).most_common(1)[0]
    if count > 1:
        raise QuestionError(
            f"{count} questions are about {clip}, and options are resampled for one question a "
            f"clip; give one question file, or leave out --redraw"
        )
    sizes = sorted({len(question.options) for question in questions})
    if len(sizes) > 1:
        raise QuestionError(
            f"the questions have {', '.join(map(str, sizes))} options, and options are resampled "
            f"for questions of one size; leave out --redraw"
        )
    return sizes[0]


def _with_options(question: Question, other: Question | None) -> Question:
    if other is None:
        raise QuestionError(
            f"question {question.question_id}: its clip {question.video} shows too few different "
            f"texts on its apparatus for this rule; take another rule, or leave out --redraw"
        )
    right = question.options[question.answer]
    if (found := other.options[other.answer]) != right:
        raise QuestionError(
            f"question {question.question_id}: the right option is {right!r}, but the clip's class "
            f"is {found!r}; only options of questions about which move it is can be resampled"
        )
    drawn = {name: getattr(other, name) for name in ("options", "answer", "option_labels", "label")}
    return replace(question, **drawn)


PARAPHRASES = (
    STEM,
    "Which gymnastics element is shown in this clip?",
    "What is the name of the skill that the gymnast performs here?",
    "Which of these descriptions fits the movement in the video?",
    "Which element does the athlete show?",
    "How would a judge describe the movement in this video?",
    "Which of the following skills can be seen in the clip?",
)


def paraphrase(questions: Sequence[Question], wordings: int, seed: int) -> list[Question]:
    """The questions, each in one of the first `wordings` of PARAPHRASES, all equally likely.

    The stem depends on the seed and the clip, so that it says nothing about the answer.

    Raises:
        QuestionError: there are not as many wordings.
    """
    if not 1 <= wordings <= len(PARAPHRASES):
        raise QuestionError(
            f"got {wordings} wordings, but there are {len(PARAPHRASES)}; 1 is the public one"
        )
    if wordings == 1:
        return list(questions)
    known = PARAPHRASES[:wordings]
    return [
        replace(one, stem=random.Random(f"{seed}/{one.video}/wording").choice(known))
        for one in questions
    ]
