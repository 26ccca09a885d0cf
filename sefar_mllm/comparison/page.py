"""comparison.md: the verdicts, the tables, the blind rows, the published figures, what ran."""

from collections.abc import Mapping, Sequence
from typing import Any

from sefar_core.runs.folder import dotted
from sefar_mllm.comparison.pair_tables import difference_table, loss_table, markdown
from sefar_mllm.comparison.plan import ROWS, Showing, Standalone
from sefar_mllm.comparison.published import TABLE_5
from sefar_mllm.comparison.question_sets import QuestionSet
from sefar_mllm.comparison.table import FIRST, RowNumbers, SetNumbers
from sefar_mllm.comparison.verdict import Verdict, times_trained
from sefar_mllm.evaluation.seeds import SeedMean

NOT_MEASURED = "not measured"
HOLDS = {True: "holds", False: "does not hold", None: NOT_MEASURED}
BLIND_ROWS = (
    ("C0", "chance"),
    ("C0", "commonest answer"),
    ("C0", "rarest answer"),
    ("C0", "longest option"),
    ("C9", "apparatus known"),
    ("C9", "apparatus known, commonest answer"),
)


def page(
    found: Mapping[str, SetNumbers],
    judged: Sequence[Verdict],
    sets: Sequence[QuestionSet],
    budget: Mapping[str, Any],
) -> str:
    """The whole page as Markdown."""
    blocks = [
        "# Encoders in the language model",
        "## Verdict",
        verdict_list(judged),
        how_often(budget),
    ]
    for questions in sets:
        one = found[questions.name]
        blocks += [
            f"## {questions.name}: {one.num_questions} questions from {one.num_sources} source "
            f"videos, rule {one.rule}",
            row_table(one),
            f"{FIRST} minus each row that is asked as it was taught, points; McNemar's p-value "
            "seed by seed, which takes questions for independent (those of one video are not):",
            difference_table(one),
            "What a model loses when it is shown something else (C3, C4, C10): its own test minus "
            f"that, run by run, points; last, what {FIRST} loses under the same change minus this "
            "loss:",
            loss_table(one),
            "The trained rows asked in other ways, percent: spoken answers that name no option, "
            "spoken answers that are right, and the option whose text is the likeliest, by the "
            "sum over its tokens, by their mean, and by what the video adds to the blind model's "
            "likelihood (PMI):",
            told_table(one),
            "Letters (A, B, ...: percent of the questions, as written, in which a letter came "
            "first; spread: standard deviation over the letters of the share that is right where "
            "the letter is), and the calibration error of the probabilities, percent:",
            letter_table(one),
            "Without looking (C0), and with the apparatus known (C9); ± is one standard error. "
            "What the rarest answer gains in the class mean is no sight:",
            blind_table(questions.blind),
        ]
    blocks += [
        "## Published",
        "Beside ours, not among them: prompts, projector, LoRA settings and scoring of the paper "
        "are not public.",
        published_table(),
        "## The rule, condition by condition",
        *(condition_table(one) for one in judged),
        "## Budget, and what ran",
        rates_chosen(budget),
        budget_lines(budget),
    ]
    return "\n\n".join(blocks) + "\n"


def verdict_list(judged: Sequence[Verdict]) -> str:
    return "\n".join(f"- {one.words}" for one in judged)


def row_table(one: SetNumbers) -> str:
    """Every row: accuracies in percent with 95 % intervals."""
    measured = next(row for row in one.rows.values() if row is not None)
    events, parts = list(measured.per_event), list(measured.parts)
    header = ["row", "control", "what it is", "micro", "class mean", "every rotation", *events]
    header += [part.replace("_", " ") for part in parts]
    header += ["seeds"]
    rows = []
    for row in ROWS:
        shown = one.rows[row.name]
        if isinstance(row, Showing) and one.rows[row.of] is None:
            continue  # its model's row says "not measured"
        start = [row.name, row.control or "-", row.says]
        if shown is None:
            rows.append([*start, NOT_MEASURED, *["-"] * (len(header) - len(start) - 1)])
            continue
        rows.append(
            [
                *start,
                *accuracies(shown),
                *(f"{100 * shown.per_event[event].mean.value:.1f}" for event in events),
                *(percent(shown.parts[part]) for part in parts),
                str(shown.num_seeds),
            ]
        )
    return markdown(header, rows)


def letter_table(one: SetNumbers) -> str:
    """Letter bias and calibration of the rows that a language model answers."""
    asked = [row.name for row in ROWS if not isinstance(row, Standalone) or row.kind == "text"]
    shown = [(name, row) for name in asked if (row := one.rows[name]) is not None]
    letters = list(shown[0][1].letters)
    rows = [
        [
            name,
            *(f"{100 * row.letters[letter]:.0f}" for letter in letters),
            f"{100 * row.letter_spread:.1f}",
            f"{100 * row.calibration_error:.1f}",
        ]
        for name, row in shown
    ]
    return markdown(["row", *letters, "spread", "calibration error"], rows)


def told_table(one: SetNumbers) -> str:
    rows = [
        [
            name,
            f"{100 * row.unreadable:.1f}",
            percent(row.spoken),
            percent(row.text_sum),
            percent(row.text_mean),
            "-" if row.text_information is None else percent(row.text_information),
        ]
        for name, row in one.told.items()
    ]
    return markdown(["row", "unreadable", "spoken", "text, sum", "text, mean", "text, PMI"], rows)


def accuracies(row: RowNumbers) -> list[str]:
    """Micro, class mean, strict."""
    macro = "no classes" if row.macro is None else percent(row.macro)
    return [percent(row.micro), macro, f"{100 * row.strict:.1f}"]


def percent(number: SeedMean | None) -> str:
    """Mean over seeds with its interval, and how single seeds scatter."""
    if number is None:
        return "no questions"
    spread = "" if number.spread is None else f" (seeds ±{100 * number.spread:.1f})"
    return f"{number.mean}{spread}"


def blind_table(blind: Mapping[str, Any]) -> str:
    rows = []
    for control, name in BLIND_ROWS:
        found = blind.get(name)
        rows.append(
            [name, control, NOT_MEASURED, "-"]
            if found is None
            else [
                name,
                control,
                f"{100 * found['micro']:.1f} ± {100 * found['micro_se']:.1f}",
                f"{100 * found['macro']:.1f} ± {100 * found['macro_se']:.1f}",
            ]
        )
    return markdown(["answers by", "control", "micro", "class mean"], rows)


def published_table() -> str:
    rows = [
        [
            one.name,
            f"{one.gym_qa_99:.1f}",
            "-" if one.gym_qa_288 is None else f"{one.gym_qa_288:.1f}",
            one.source,
        ]
        for one in TABLE_5
    ]
    return markdown(["row", "Gym-QA-99, micro", "Gym-QA-288, micro", "source"], rows)


def condition_table(one: Verdict) -> str:
    rows = [
        [each.name, HOLDS[each.holds], each.words, each.over_all_questions]
        for each in one.conditions
    ]
    return f"### {one.first} against {one.second}\n\n" + markdown(
        ["condition", "", "class-mean points [95 %]", "over all questions (micro)"], rows
    )


def how_often(budget: Mapping[str, Any]) -> str:
    """How often everything was trained, and whose weights the image models have."""
    recognizers, num_seeds = budget["recognizers"], len(budget["seeds"])
    trained = times_trained(list(recognizers), num_seeds, recognizers)
    runs = " and of these runs" if num_seeds > 1 else ""
    said = [f"Trained with {trained}. Intervals cover the draw of source videos{runs}."]
    said += [f"{name}: {words}." for name, words in budget["weights"].items()]
    return " ".join(said)


def rates_chosen(budget: Mapping[str, Any]) -> str:
    """C8: how the learning rates of the rows came about."""
    grid = ", ".join(f"{factor:g}" for factor in budget["lr_grid"])
    shared = f"Every row had the same settings and {len(budget['seeds'])} seeds (C8)."
    if len(budget["lr_grid"]) == 1:
        return f"{shared} Learning rates: those of the settings times {grid}; no row was tuned."
    return (
        f"{shared} Learning rates: each row took its best factor of {grid}, tried with the first "
        f"seed on {100 * budget['dev_rate']:.0f} % of its training questions."
    )


def budget_lines(budget: Mapping[str, Any]) -> str:
    """Settings and what ran, nested ones under dotted names."""
    return "\n".join(f"- {name}: {value}" for name, value in dotted(dict(budget)).items())
