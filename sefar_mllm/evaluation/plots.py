"""Pictures of one model on one question set: classes, letters, reliability."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten

import matplotlib
import numpy as np

from qa_data.schema import Question
from sefar_core.plots import save
from sefar_mllm.evaluation.calibration import Calibration
from sefar_mllm.evaluation.summary import Summary

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

NAME_WIDTH = 50  # characters of a class's name; FineGym's longest have three times as many


def plot_set(
    summary: Summary,
    questions: Sequence[Question],
    folder: Path,
    *,
    name: str,
    train: Sequence[Question] | None,
) -> None:
    """classes-NAME.png (if there are classes), letters-NAME.png and reliability-NAME.png.

    Args:
        summary: numbers of the set.
        questions: the set.
        folder: where the pictures go.
        name: of the set.
        train: the questions that were learned, which say how common a class is; without them the
            set itself does.
    """
    known = train is not None and all(one.label is not None for one in train)
    counted = train if train is not None and known else questions
    if summary.per_class:
        plot_classes(
            summary,
            folder / f"classes-{name}.png",
            frequency=Counter(one.label for one in counted if one.label is not None),
            names={
                one.label: one.options[one.answer] for one in questions if one.label is not None
            },
            counted="the training questions" if known else "these questions",
        )
    plot_letters(summary, folder / f"letters-{name}.png")
    plot_reliability(summary.calibration, folder / f"reliability-{name}.png")


def plot_classes(
    summary: Summary,
    path: Path,
    *,
    frequency: Mapping[int, int],
    names: Mapping[int, str],
    counted: str,
) -> None:
    """A bar for the accuracy of each class, the commonest class first, with its interval.

    Args:
        summary: numbers of a set whose questions carry classes.
        path: of the PNG.
        frequency: how often each class was there; a class that is not named was not.
        names: what each class is called.
        counted: where the frequency was counted, for the title.
    """
    order = sorted(summary.per_class, key=lambda label: (-frequency.get(label, 0), label))
    intervals = [summary.per_class[label].micro for label in order]
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
    axes.axvline(summary.chance, color="gray", linestyle=":", label="chance")
    labels = [
        f"{shorten(f'{label} {names[label]}', NAME_WIDTH, placeholder=' ...')} "
        f"({frequency.get(label, 0)})"
        for label in order
    ]
    axes.set_yticks(places, labels, fontsize=6)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("accuracy")
    axes.set_title(f"class (how often in {counted})", fontsize=9)
    axes.legend(fontsize=8)
    save(figure, path)


def plot_letters(summary: Summary, path: Path) -> None:
    """How often each letter is right and is chosen in the file's order, and each one's recall."""
    letters = list(summary.letter_recall)
    places = np.arange(len(letters))
    count = summary.num_questions
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    bars = (
        ("is right", [summary.answer_letters.get(one, 0) / count for one in letters], "gray"),
        ("is chosen", [summary.letters.get(one, 0) / count for one in letters], "tab:orange"),
        ("recall", list(summary.letter_recall.values()), "tab:blue"),
    )
    for number, (name, values, color) in enumerate(bars):
        axes.bar(places + 0.27 * (number - 1), values, width=0.25, color=color, label=name)
    axes.set_xticks(places, letters)
    axes.set_ylim(0, 1)
    axes.set_ylabel("share of questions")
    axes.set_title(f"spread of the recall: {100 * summary.letter_spread:.1f} points", fontsize=9)
    axes.legend(ncols=3, fontsize=8)
    save(figure, path)


def plot_reliability(calibration: Calibration, path: Path) -> None:
    """Accuracy over confidence in each bin; the area of a dot is its share of the questions."""
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
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.set_title(f"expected calibration error {calibration.error:.3f}", fontsize=9)
    axes.legend()
    save(figure, path)
