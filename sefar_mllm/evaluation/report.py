"""Tables for the terminal and plots of one model on its question sets.

Accuracies are in percent with 95 % intervals. Names that come from data are `Text`, which rich
prints unchanged: in a plain string it reads `[...]` as markup and `:name:` as an emoji.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table
from rich.text import Text

from qa_data.questions import Question
from sefar_core.intervals import Interval
from sefar_core.plots import save
from sefar_mllm.evaluation.diagnostics import Diagnosis
from sefar_mllm.evaluation.metrics import Calibration, Metrics

NAME_WIDTH = 50  # characters of a class name; FineGym's longest have three times as many


def score_table(metrics: Mapping[str, Metrics], *, control: str | None) -> Table:
    """One row for each question set.

    `control` is the control in words; None without one.
    """
    view = Table(
        "questions",
        "n",
        "sources",
        "chance",
        "micro",
        "macro",
        "strict",
        "file order",
        "letters",
        "ECE",
        title=titled("letter likelihood, averaged over the rotations of the options", control),
        caption="macro: mean over classes; strict: right in every rotation; file order: not "
        "rotated; letters: how often each is the likeliest in the file order, and the spread of "
        "their recall; ECE: expected calibration error",
    )
    for name, one in metrics.items():
        letters = " ".join(f"{letter}{count}" for letter, count in one.letters.items())
        view.add_row(
            Text(name),
            str(one.num_questions),
            str(one.num_sources),
            percent(one.chance),
            str(one.micro),
            interval_text(one.macro, "no classes"),
            percent(one.strict),
            str(one.file_order),
            Text(f"{letters} ({percent(one.letter_spread)})"),
            percent(one.calibration.error),
        )
    return view


def subset_table(metrics: Mapping[str, Metrics], *, control: str | None) -> Table:
    """One row for each apparatus and each named subset of each question set."""
    columns = ("questions", "subset", "n", "sources", "micro", "macro")
    view = Table(*columns, title=titled("apparatus and subsets", control))
    for name, one in metrics.items():
        for label, subset in (one.per_event | one.subsets).items():
            view.add_row(
                Text(name),
                Text(label if label in one.per_event else label.replace("_", " ")),
                str(subset.num_questions),
                str(subset.num_sources),
                interval_text(subset.micro, "no questions"),
                interval_text(subset.macro, "-"),
            )
    return view


def diagnosis_table(diagnoses: Mapping[str, Diagnosis], *, control: str | None) -> Table:
    """One row for each question set, with the meaning of each gap in the caption."""
    meanings = "\n".join(f"{name}: {one.interpretation}" for name, one in diagnoses.items())
    view = Table(
        "questions",
        "generated",
        "no option",
        "same letter",
        "generated - primary",
        "file order - primary",
        "text, sum",
        "text, mean",
        title=titled("diagnostics", control),
        caption=Text(meanings),
    )
    for name, one in diagnoses.items():
        view.add_row(
            Text(name),
            str(one.generated),
            percent(one.unreadable),
            percent(one.agreement),
            str(one.generated_gap),
            str(one.rotation_gap),
            str(one.text_sum),
            str(one.text_mean),
        )
    return view


def titled(title: str, control: str | None) -> Text:
    return Text(title if control is None else f"control ({control}): {title}")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def interval_text(interval: Interval | None, without: str) -> str:
    return without if interval is None else str(interval)


def plot_set(
    metrics: Metrics,
    questions: Sequence[Question],
    folder: Path,
    *,
    name: str,
    train: Sequence[Question] | None,
) -> None:
    """Plot classes-NAME.png (if there are classes), letters-NAME.png and reliability-NAME.png.

    Classes are counted in `train`, or without it in the set itself.
    """
    known = train is not None and all(one.label is not None for one in train)
    counted = train if train is not None and known else questions
    if metrics.per_class:
        plot_classes(
            metrics,
            folder / f"classes-{name}.png",
            frequency=Counter(one.label for one in counted if one.label is not None),
            names={
                one.label: one.options[one.answer] for one in questions if one.label is not None
            },
            counted="the training questions" if known else "these questions",
        )
    plot_letters(metrics, folder / f"letters-{name}.png")
    plot_reliability(metrics.calibration, folder / f"reliability-{name}.png")


def plot_classes(
    metrics: Metrics,
    path: Path,
    *,
    frequency: Mapping[int, int],
    names: Mapping[int, str],
    counted: str,
) -> None:
    """A bar for the accuracy of each class with its interval, the most frequent class first.

    `frequency` is the number of `counted` questions of a class; a missing class has none.
    """
    order = sorted(metrics.per_class, key=lambda label: (-frequency.get(label, 0), label))
    intervals = [metrics.per_class[label].micro for label in order]
    values = np.array([one.value for one in intervals if one is not None])
    limits = [
        (place, *one.limits)
        for place, one in enumerate(intervals)
        if one is not None and one.limits is not None
    ]
    figure, axes = plt.subplots(figsize=(7.5, 1.4 + 0.17 * len(order)))
    places = np.arange(len(order))
    axes.barh(places, values, color="tab:blue", alpha=0.6)
    for place, low, high in limits:
        axes.hlines(place, low, high, color="black", linewidth=0.8)
    axes.axvline(metrics.chance, color="gray", linestyle=":", label="chance")
    labels = [
        f"{shorten(f'{label} {names[label]}', NAME_WIDTH, placeholder=' ...')} "
        f"({frequency.get(label, 0)})"
        for label in order
    ]
    axes.set_yticks(places, labels, fontsize=6)
    axes.set(ylim=(len(order) - 0.4, -0.6), xlim=(0, 1), xlabel="accuracy")
    axes.set_title(f"class (count in {counted})", fontsize=9)
    axes.legend(fontsize=8)
    save(figure, path)


def plot_letters(metrics: Metrics, path: Path) -> None:
    """How often each letter is right and is chosen in the order of the file, and its recall."""
    letters = list(metrics.letter_recall)
    places = np.arange(len(letters))
    count = metrics.num_questions
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    bars = (
        ("is right", [metrics.answer_letters.get(one, 0) / count for one in letters], "gray"),
        ("is chosen", [metrics.letters.get(one, 0) / count for one in letters], "tab:orange"),
        ("recall", list(metrics.letter_recall.values()), "tab:blue"),
    )
    for number, (name, values, color) in enumerate(bars):
        axes.bar(places + 0.27 * (number - 1), values, width=0.25, color=color, label=name)
    axes.set_xticks(places, letters)
    axes.set(ylim=(0, 1), ylabel="share of questions")
    axes.set_title(f"spread of recall: {100 * metrics.letter_spread:.1f} points", fontsize=9)
    axes.legend(ncols=3, fontsize=8)
    save(figure, path)


def plot_reliability(calibration: Calibration, path: Path) -> None:
    """Accuracy over confidence in each bin; the area of a dot is the bin's share of questions."""
    filled = [
        (one.confidence, one.accuracy, one.num_questions)
        for one in calibration.bins
        if one.confidence is not None and one.accuracy is not None
    ]
    confidence, accuracy, sizes = map(np.array, zip(*filled, strict=True))
    figure, axes = plt.subplots(figsize=(3.8, 3.8))
    axes.plot([0, 1], [0, 1], color="gray", linestyle=":", label="calibrated")
    axes.plot(confidence, accuracy, color="tab:blue", linewidth=1)
    axes.scatter(confidence, accuracy, s=400 * sizes / sizes.sum(), color="tab:blue", alpha=0.6)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.set_title(f"expected calibration error {calibration.error:.3f}", fontsize=9)
    axes.legend()
    save(figure, path)
