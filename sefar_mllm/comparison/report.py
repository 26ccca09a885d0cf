"""comparison.md: the verdicts, the tables, the blind rows, the published figures, what ran.

The page's tables of paired differences: between rows, and of a row with itself.

Pictures of a comparison: accuracies with intervals, classes, letters, learning curves.

What the paper and the public question files say, to stand beside our rows, never among them.

Source: SeFAR (arXiv:2501.01245), Table 5, Vicuna-7B. Its prompts, projector, LoRA settings and
scoring are not public, so these figures and ours do not compare. The blind row is ours: the option
that was the answer most often in the public training file, on the public validation file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sefar_core.plots import plt, save
from sefar_core.run_dir import dotted, read_metrics
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.rows import ROWS, SHOWINGS, TRAININGS, QuestionSet, Showing, Standalone
from sefar_mllm.comparison.statistics import (
    FIRST,
    RowNumbers,
    SetNumbers,
    Verdict,
    signed,
    times_trained,
)
from sefar_mllm.evaluation.significance import SeedComparison, SeedMean


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def difference_table(one: SetNumbers) -> str:
    """`sefar` minus each row, with McNemar's p-value of each seed."""
    rows = [
        [
            row.name,
            *points(one.differences[row.name]),
            ", ".join(f"{p:.2g}" for p in one.mcnemar_p[row.name]),
        ]
        for row in ROWS
        if row.name in one.differences
    ]
    return markdown([f"{FIRST} minus", "class mean", "micro", "McNemar p"], rows)


def loss_table(one: SetNumbers) -> str:
    """What each model loses under each change, and whether `sefar` loses more."""
    rows = [
        [
            row.of,
            row.says,
            *points(one.losses[row.name]),
            *(points(one.more_lost[row.name]) if row.name in one.more_lost else ("-", "-")),
        ]
        for row in SHOWINGS
        if row.name in one.losses
    ]
    header = ["row", "shown", "own minus shown, class mean", "own minus shown, micro"]
    header += [f"{FIRST} loses more, class mean", f"{FIRST} loses more, micro"]
    return markdown(header, rows)


def points(gap: SeedComparison) -> tuple[str, str]:
    """Class mean and micro, in points."""
    return "no classes" if gap.macro is None else signed(gap.macro), signed(gap.micro)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Micro accuracy in percent on Gym-QA-99 and Gym-QA-288; None where there is no figure."""

    name: str
    gym_qa_99: float
    gym_qa_288: float | None
    source: str


PAPER = "published, Table 5"
TABLE_5 = (
    Published(name="CLIP ViT-L", gym_qa_99=37.3, gym_qa_288=41.0, source=PAPER),
    Published(name="EVA-CLIP ViT-G/14", gym_qa_99=43.7, gym_qa_288=44.8, source=PAPER),
    Published(name="ViT-L/14", gym_qa_99=44.3, gym_qa_288=46.0, source=PAPER),
    Published(name="SeFAR", gym_qa_99=49.0, gym_qa_288=56.2, source=PAPER),
    Published(
        name="commonest training answer, without looking",
        gym_qa_99=46.7,
        gym_qa_288=None,
        source="measured on the public file; class mean 24.3",
    ),
)


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


SHOWN_CLASSES = 40
CURVES = ("sefar", "clip", "eva", "supervised", "random", "constant")


def plot_all(found: Mapping[str, SetNumbers], config: CompareConfig) -> None:
    """All pictures, into the folder plots."""
    folder = config.out / "plots"
    folder.mkdir(exist_ok=True)
    for name, one in found.items():
        plot_rows(one, folder / f"{name}-rows.png")
        plot_classes(one, folder / f"{name}-classes.png")
        plot_letters(one, folder / f"{name}-letters.png")
        plot_learning(config, name, folder / f"{name}-learning.png")


def plot_rows(one: SetNumbers, path: Path) -> None:
    """Class-mean accuracy of every measured row with its 95 % interval, micro as a ring."""
    rows = [(name, row) for name, row in one.rows.items() if row is not None and row.macro]
    figure, axes = plt.subplots(figsize=(7.5, 1.2 + 0.26 * len(rows)))
    for place, (name, row) in enumerate(rows):
        assert row.macro is not None
        mean = row.macro.mean
        color = "tab:blue" if name == FIRST else "tab:gray" if "-" in name else "black"
        if mean.limits is not None:
            axes.plot([100 * end for end in mean.limits], [place] * 2, color=color, linewidth=2)
        axes.plot(100 * mean.value, place, "o", color=color, markersize=5)
        axes.plot(100 * row.micro.mean.value, place, "o", color=color, markerfacecolor="none")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("accuracy, %: class mean with 95 % interval (dot), micro (ring)")
    axes.set_title(f"{one.rule} questions")
    save(figure, path)


def plot_classes(one: SetNumbers, path: Path) -> None:
    """Accuracy within each class: sefar beside the other rivals."""
    rows = {row.name: one.rows[row.name] for row in TRAININGS if row.name in CURVES}
    shown = {name: row for name, row in rows.items() if row is not None}
    labels = sorted(next(iter(shown.values())).per_class)[:SHOWN_CLASSES]
    figure, axes = plt.subplots(figsize=(2 + 0.45 * len(labels), 3.4))
    width = 0.8 / len(shown)
    for number, (name, row) in enumerate(shown.items()):
        places = np.arange(len(labels)) + number * width - 0.4 + width / 2
        axes.bar(places, [100 * row.per_class[label] for label in labels], width, label=name)
    axes.set_xticks(range(len(labels)), [str(label) for label in labels])
    axes.set_xlabel("class")
    axes.set_ylabel("accuracy, %")
    axes.legend(fontsize=7, ncols=len(shown))
    save(figure, path)


def plot_letters(one: SetNumbers, path: Path) -> None:
    """How often each letter came first in the questions as they are written."""
    rows = [(row.name, one.rows[row.name]) for row in TRAININGS]
    shown = [(name, row) for name, row in rows if row is not None]
    figure, axes = plt.subplots(figsize=(6.5, 1.2 + 0.26 * len(shown)))
    left = np.zeros(len(shown))
    for letter in shown[0][1].letters:
        shares = np.array([100 * row.letters[letter] for _, row in shown])
        axes.barh(range(len(shown)), shares, left=left, label=letter)
        left += shares
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("share of questions whose first letter is this one, %")
    axes.legend(fontsize=7, ncols=8)
    save(figure, path)


def plot_learning(config: CompareConfig, questions: str, path: Path) -> None:
    """Training loss of the rivals, first seed; dashed, accuracy on a dev part if there is one."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name in CURVES:
        metrics = config.out / "runs" / questions / name / f"seed-{config.seeds[0]}/metrics.jsonl"
        if metrics.is_file():
            lines = read_metrics(metrics)
            losses = [line["loss"] for line in lines if "loss" in line]
            (drawn,) = axes.plot(np.linspace(0, 1, len(losses)), losses, label=name)
            dev = [line["dev_micro"] for line in lines if "dev_micro" in line]
            places = np.arange(1, len(dev) + 1) / max(1, len(dev))
            axes.plot(places, dev, "--", color=drawn.get_color())
    axes.set_xlabel("share of the training")
    axes.set_ylabel("loss; dashed: dev accuracy")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    save(figure, path)
