"""comparison.md and its plots: decisions, tables, published figures, budget, versions.

Source of the published figures: SeFAR (arXiv:2501.01245), Table 5, Vicuna-7B. Its prompts,
projector, LoRA settings and scoring are not public, so the figures are not comparable with ours and
have their own table. The blind row among them is our measurement: the option that was the answer
most often in the public training file, on the public validation file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sefar_core.config import dotted
from sefar_core.plots import plt, save
from sefar_core.run_dir import read_metrics
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
    NOT_MEASURED,
    Decision,
    FolderNumbers,
    signed,
    times_trained,
)
from sefar_mllm.evaluation.significance import SeedComparison, SeedMean

HOLDS = {True: "holds", False: "does not hold", None: NOT_MEASURED}
BLIND_ROWS = (
    ("C0", "chance"),
    ("C0", "commonest answer"),
    ("C0", "rarest answer"),
    ("C0", "longest option"),
    ("C9", "apparatus known"),
    ("C9", "apparatus known, commonest answer"),
)
PUBLISHED = (
    ("CLIP ViT-L", 37.3, 41.0, "published, Table 5"),
    ("EVA-CLIP ViT-G/14", 43.7, 44.8, "published, Table 5"),
    ("ViT-L/14", 44.3, 46.0, "published, Table 5"),
    ("SeFAR", 49.0, 56.2, "published, Table 5"),
    (
        "commonest training answer, no video",
        46.7,
        None,
        "measured on the public file; class mean 24.3",
    ),
)
TABLE_5 = [
    dict(zip(("name", "gym_qa_99", "gym_qa_288", "source"), row, strict=True)) for row in PUBLISHED
]
"""Micro accuracy in percent on Gym-QA-99 and Gym-QA-288; None where there is no figure."""
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
        "\n".join(f"- {one.words}" for one in decided),
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
        markdown(
            ["row", "Gym-QA-99, micro", "Gym-QA-288, micro", "source"],
            [
                [name, f"{a:.1f}", f"{b:.1f}" if b else "-", source]
                for name, a, b, source in PUBLISHED
            ],
        ),
        "## Decision rule, condition by condition",
        *(condition_table(one) for one in decided),
        "## Budget, settings and versions",
        lr_sentence(budget),
        "\n".join(f"- {name}: {value}" for name, value in dotted(dict(budget)).items()),
    ]
    return "\n\n".join(blocks) + "\n"


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
    header = ["row", "control", "description", "micro", "class mean", "every rotation"]
    header += [*measured.per_event, *(name.replace("_", " ") for name in measured.subsets), "seeds"]
    rows = []
    for row in ROWS:
        numbers = one.rows[row.name]
        line = [row.name, row.control or "-", row.description]
        if isinstance(row, ConditionRow) and one.rows[row.base] is None:
            continue  # the row of its model reads "not measured"
        if numbers is None:
            line += [NOT_MEASURED, *["-"] * (len(header) - len(line) - 1)]
        else:
            macro = "no classes" if numbers.macro is None else percent(numbers.macro)
            line += [percent(numbers.micro), macro, tenths(numbers.strict)]
            line += [tenths(numbers.per_event[name].mean.value) for name in measured.per_event]
            line += [percent(numbers.subsets[name]) for name in measured.subsets]
            line += [str(numbers.num_seeds)]
        rows.append(line)
    return markdown(header, rows)


def tenths(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f}"


def percent(number: SeedMean | None) -> str:
    """Mean over seeds with its interval, and the standard deviation of single seeds."""
    if number is None:
        return "no questions"
    spread = "" if number.spread is None else f" (seeds ±{tenths(number.spread)})"
    return f"{number.mean}{spread}"


def points(gap: SeedComparison | None) -> tuple[str, str]:
    """Class mean and micro, in points."""
    if gap is None:
        return "-", "-"
    return "no classes" if gap.macro is None else signed(gap.macro), signed(gap.micro)


def difference_table(one: FolderNumbers) -> str:
    """`sefar` minus each row, with McNemar's p-value of each seed."""
    rows = [
        [name, *points(one.differences[name]), ", ".join(f"{p:.2g}" for p in one.mcnemar_p[name])]
        for name in (row.name for row in ROWS)
        if name in one.differences
    ]
    return markdown([f"{FIRST} minus", "class mean", "micro", "McNemar p"], rows)


def drop_table(one: FolderNumbers) -> str:
    """The ablation drop of each model under each condition, and the extra drop of `sefar`."""
    rows = [
        [row.base, row.description, *points(drop), *points(one.extra_drops.get(row.name))]
        for row in CONDITION_ROWS
        if (drop := one.drops.get(row.name))
    ]
    header = ["row", "condition", "drop, class mean", "drop, micro"]
    header += [f"extra drop of {FIRST}, class mean", f"extra drop of {FIRST}, micro"]
    return markdown(header, rows)


def diagnostics_table(one: FolderNumbers) -> str:
    """The trained rows in other answer formats."""
    rows = []
    for name, row in one.diagnostics.items():
        shares = [percent(each) for each in (row.generated, row.text_sum, row.text_mean)]
        information = "-" if row.text_information is None else percent(row.text_information)
        rows.append([name, tenths(row.unreadable), *shares, information])
    header = ["row", "no option named", "generated", "text, sum", "text, mean", "text, PMI"]
    return markdown(header, rows)


def letter_table(one: FolderNumbers) -> str:
    """Letter bias and calibration of the rows with a language model."""
    names = [row.name for row in ROWS if not isinstance(row, BaselineRow) or row.kind == "text"]
    shown = {name: row for name in names if (row := one.rows[name]) is not None}
    letters = list(next(iter(shown.values())).letters)
    rows = [
        [name, *(f"{100 * row.letters[letter]:.0f}" for letter in letters)]
        + [tenths(row.letter_spread), tenths(row.calibration_error)]
        for name, row in shown.items()
    ]
    return markdown(["row", *letters, "spread", "calibration error"], rows)


def blind_table(blind: Mapping[str, Any]) -> str:
    """The audit of the test questions; ± is one standard error."""
    rows = []
    for control, rule in BLIND_ROWS:
        found = blind.get(rule, {})
        scores = [
            f"{tenths(found[kind])} ± {tenths(found[f'{kind}_se'])}"
            for kind in ("micro", "macro")
            if found
        ]
        rows.append([rule, control, *(scores or [NOT_MEASURED, "-"])])
    return markdown(["rule", "control", "micro", "class mean"], rows)


def condition_table(one: Decision) -> str:
    """Every condition of the decision about two rows."""
    rows = [
        [each.name, HOLDS[each.holds], each.words, each.over_all_questions]
        for each in one.conditions
    ]
    header = ["condition", "result", "class-mean points [95 %]", "over all questions (micro)"]
    return f"### {one.first} against {one.second}\n\n{markdown(header, rows)}"


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


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot_all(
    numbers: Mapping[str, FolderNumbers], metrics: Mapping[str, Mapping[str, Path]], folder: Path
) -> None:
    """All plots, written to a folder; `metrics` are training logs by question folder and row."""
    folder.mkdir(exist_ok=True)
    for name, one in numbers.items():
        plot_rows(one, folder / f"{name}-rows.png")
        plot_row_classes(one, folder / f"{name}-classes.png")
        plot_row_letters(one, folder / f"{name}-letters.png")
        plot_learning(metrics[name], folder / f"{name}-learning.png")


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


def plot_learning(metrics: Mapping[str, Path], path: Path) -> None:
    """Training loss of the encoders; dashed, validation accuracy if measured."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    for name in CURVES:
        if name in metrics:
            lines = read_metrics(metrics[name])
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
