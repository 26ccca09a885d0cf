"""comparison.md and its plots: decisions, tables, published figures, budget, versions.

Source of the published figures: SeFAR (arXiv:2501.01245), Table 5, Vicuna-7B. Its prompts,
projector, LoRA settings and scoring are not public, so the figures are not comparable with ours and
have their own table. The blind row among them is our measurement: the option that was the answer
most often in the public training file, on the public validation file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sefar_core.plots import plt, save
from sefar_core.run_dir import dotted, read_metrics
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.rows import (
    CONDITION_ROWS,
    ROWS,
    TRAINED_ROWS,
    BaselineRow,
    ConditionRow,
    QuestionFolder,
)
from sefar_mllm.comparison.statistics import (
    FIRST,
    Decision,
    FolderNumbers,
    RowNumbers,
    signed,
    times_trained,
)
from sefar_mllm.evaluation.significance import SeedComparison, SeedMean

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
SHOWN_CLASSES = 40
CURVES = ("sefar", "clip", "eva", "supervised", "random", "constant")


def comparison_page(
    numbers: Mapping[str, FolderNumbers],
    decided: Sequence[Decision],
    sets: Sequence[QuestionFolder],
    budget: Mapping[str, Any],
) -> str:
    """The whole page as Markdown."""
    blocks = [
        "# Encoders in the language model",
        "## Decisions",
        decision_list(decided),
        training_sentence(budget),
    ]
    for questions in sets:
        one = numbers[questions.name]
        blocks += [
            f"## {questions.name}: {one.num_questions} questions from {one.num_sources} source "
            f"videos, rule {one.rule}",
            row_table(one),
            f"{FIRST} minus each row that is tested as it was trained, in points. McNemar's p is "
            "per seed; it treats questions as independent, which those of one video are not:",
            difference_table(one),
            "Ablation drops (C3, C4, C10): a model's own test minus its test under the condition, "
            f"run by run, in points. The extra drop of {FIRST} is its drop under that condition "
            "minus this drop:",
            drop_table(one),
            "The trained rows in other answer formats, percent: generated answers that name no "
            "option, generated answers that are right, and the option whose text has the highest "
            "log-likelihood, by the sum over its tokens, by their mean, and by the sum minus that "
            "of the blind model (PMI):",
            diagnostics_table(one),
            "Letters, percent (A, B, ...: questions, in the order of the file, in which the letter "
            "is the likeliest; spread: standard deviation of the recall over the letters), and the "
            "calibration error of the probabilities, percent:",
            letter_table(one),
            "Rules that see no video (C0), and rules that know the apparatus (C9); ± is one "
            "standard error. The gain of the rarest answer in the class mean needs no video:",
            blind_table(questions.blind),
        ]
    blocks += [
        "## Published figures",
        "Not comparable with the rows above: prompts, projector, LoRA settings and scoring of the "
        "paper are not public.",
        published_table(),
        "## Decision rule, condition by condition",
        *(condition_table(one) for one in decided),
        "## Budget, settings and versions",
        lr_sentence(budget),
        budget_lines(budget),
    ]
    return "\n\n".join(blocks) + "\n"


def decision_list(decided: Sequence[Decision]) -> str:
    return "\n".join(f"- {one.words}" for one in decided)


def training_sentence(budget: Mapping[str, Any]) -> str:
    """The number of trainings, and whether the weights of the image models were verified."""
    recognizers, num_seeds = budget["recognizers"], len(budget["seeds"])
    trained = times_trained(list(recognizers), num_seeds, recognizers)
    runs = " and of these runs" if num_seeds > 1 else ""
    sentences = [f"Trained with {trained}. Intervals cover the choice of source videos{runs}."]
    sentences += [f"{name}: {words}." for name, words in budget["weights"].items()]
    return " ".join(sentences)


def row_table(one: FolderNumbers) -> str:
    """Every row: accuracies in percent with 95 % intervals."""
    measured = next(row for row in one.rows.values() if row is not None)
    events, subsets = list(measured.per_event), list(measured.subsets)
    header = ["row", "control", "description", "micro", "class mean", "every rotation", *events]
    header += [subset.replace("_", " ") for subset in subsets]
    header += ["seeds"]
    rows = []
    for row in ROWS:
        row_numbers = one.rows[row.name]
        if isinstance(row, ConditionRow) and one.rows[row.base] is None:
            continue  # the row of its model reads "not measured"
        start = [row.name, row.control or "-", row.description]
        if row_numbers is None:
            rows.append([*start, NOT_MEASURED, *["-"] * (len(header) - len(start) - 1)])
            continue
        rows.append(
            [
                *start,
                *accuracies(row_numbers),
                *(f"{100 * row_numbers.per_event[event].mean.value:.1f}" for event in events),
                *(percent(row_numbers.subsets[subset]) for subset in subsets),
                str(row_numbers.num_seeds),
            ]
        )
    return markdown(header, rows)


def accuracies(row: RowNumbers) -> list[str]:
    """Micro, class mean, strict."""
    macro = "no classes" if row.macro is None else percent(row.macro)
    return [percent(row.micro), macro, f"{100 * row.strict:.1f}"]


def percent(number: SeedMean | None) -> str:
    """Mean over seeds with its interval, and the standard deviation of single seeds."""
    if number is None:
        return "no questions"
    spread = "" if number.spread is None else f" (seeds ±{100 * number.spread:.1f})"
    return f"{number.mean}{spread}"


def difference_table(one: FolderNumbers) -> str:
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


def drop_table(one: FolderNumbers) -> str:
    """The ablation drop of each model under each condition, and the extra drop of `sefar`."""
    rows = [
        [
            row.base,
            row.description,
            *points(one.drops[row.name]),
            *(points(one.extra_drops[row.name]) if row.name in one.extra_drops else ("-", "-")),
        ]
        for row in CONDITION_ROWS
        if row.name in one.drops
    ]
    header = ["row", "condition", "drop, class mean", "drop, micro"]
    header += [f"extra drop of {FIRST}, class mean", f"extra drop of {FIRST}, micro"]
    return markdown(header, rows)


def points(gap: SeedComparison) -> tuple[str, str]:
    """Class mean and micro, in points."""
    return "no classes" if gap.macro is None else signed(gap.macro), signed(gap.micro)


def diagnostics_table(one: FolderNumbers) -> str:
    rows = [
        [
            name,
            f"{100 * row.unreadable:.1f}",
            percent(row.generated),
            percent(row.text_sum),
            percent(row.text_mean),
            "-" if row.text_information is None else percent(row.text_information),
        ]
        for name, row in one.diagnostics.items()
    ]
    header = ["row", "no option named", "generated", "text, sum", "text, mean", "text, PMI"]
    return markdown(header, rows)


def letter_table(one: FolderNumbers) -> str:
    """Letter bias and calibration of the rows with a language model."""
    names = [row.name for row in ROWS if not isinstance(row, BaselineRow) or row.kind == "text"]
    shown = [(name, row) for name in names if (row := one.rows[name]) is not None]
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


def blind_table(blind: Mapping[str, Any]) -> str:
    rows = []
    for control, name in BLIND_ROWS:
        scores = blind.get(name)
        rows.append(
            [name, control, NOT_MEASURED, "-"]
            if scores is None
            else [
                name,
                control,
                f"{100 * scores['micro']:.1f} ± {100 * scores['micro_se']:.1f}",
                f"{100 * scores['macro']:.1f} ± {100 * scores['macro_se']:.1f}",
            ]
        )
    return markdown(["rule", "control", "micro", "class mean"], rows)


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
        name="commonest training answer, no video",
        gym_qa_99=46.7,
        gym_qa_288=None,
        source="measured on the public file; class mean 24.3",
    ),
)


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


def condition_table(one: Decision) -> str:
    rows = [
        [each.name, HOLDS[each.holds], each.words, each.over_all_questions]
        for each in one.conditions
    ]
    return f"### {one.first} against {one.second}\n\n" + markdown(
        ["condition", "result", "class-mean points [95 %]", "over all questions (micro)"], rows
    )


def lr_sentence(budget: Mapping[str, Any]) -> str:
    """C8: how the learning rates of the rows were chosen."""
    grid = ", ".join(f"{factor:g}" for factor in budget["lr_grid"])
    shared = f"Every row had the same settings and {len(budget['seeds'])} seeds (C8)."
    if len(budget["lr_grid"]) == 1:
        return f"{shared} Learning rates: those of the settings times {grid}; no row was tuned."
    return (
        f"{shared} Learning rates: each row has its best factor of {grid}, chosen with the first "
        f"seed on {100 * budget['dev_rate']:.0f} % of its training questions."
    )


def budget_lines(budget: Mapping[str, Any]) -> str:
    """Settings and versions, nested ones under dotted names."""
    return "\n".join(f"- {name}: {value}" for name, value in dotted(dict(budget)).items())


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot_all(numbers: Mapping[str, FolderNumbers], config: CompareConfig) -> None:
    """All plots, written to the folder plots."""
    folder = config.out / "plots"
    folder.mkdir(exist_ok=True)
    for name, one in numbers.items():
        plot_rows(one, folder / f"{name}-rows.png")
        plot_row_classes(one, folder / f"{name}-classes.png")
        plot_row_letters(one, folder / f"{name}-letters.png")
        plot_learning(config, name, folder / f"{name}-learning.png")


def plot_rows(one: FolderNumbers, path: Path) -> None:
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


def plot_row_classes(one: FolderNumbers, path: Path) -> None:
    """Accuracy within each class: `sefar` beside the other encoders."""
    rows = {row.name: one.rows[row.name] for row in TRAINED_ROWS if row.name in CURVES}
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


def plot_row_letters(one: FolderNumbers, path: Path) -> None:
    """Share of the questions, in the order of the file, in which each letter is the likeliest."""
    rows = [(row.name, one.rows[row.name]) for row in TRAINED_ROWS]
    shown = [(name, row) for name, row in rows if row is not None]
    figure, axes = plt.subplots(figsize=(6.5, 1.2 + 0.26 * len(shown)))
    left = np.zeros(len(shown))
    for letter in shown[0][1].letters:
        shares = np.array([100 * row.letters[letter] for _, row in shown])
        axes.barh(range(len(shown)), shares, left=left, label=letter)
        left += shares
    axes.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("share of questions in which this letter is the likeliest, %")
    axes.legend(fontsize=7, ncols=8)
    save(figure, path)


def plot_learning(config: CompareConfig, questions: str, path: Path) -> None:
    """Training loss of the encoders, first seed; dashed, validation accuracy if measured."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name in CURVES:
        metrics = config.out / "runs" / questions / name / f"seed-{config.seeds[0]}/metrics.jsonl"
        if metrics.is_file():
            lines = read_metrics(metrics)
            losses = [line["loss"] for line in lines if "loss" in line]
            (drawn,) = axes.plot(np.linspace(0, 1, len(losses)), losses, label=name)
            scores = [line["dev_micro"] for line in lines if "dev_micro" in line]
            places = np.arange(1, len(scores) + 1) / max(1, len(scores))
            axes.plot(places, scores, "--", color=drawn.get_color())
    axes.set_xlabel("share of the training")
    axes.set_ylabel("loss; dashed: validation accuracy")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    save(figure, path)
