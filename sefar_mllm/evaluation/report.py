"""The numbers for the terminal: accuracies in percent with their 95 % intervals.

Names that others chose are `Text`, which rich prints as it is: it takes `[...]` in a plain string
for markup and `:name:` for an emoji.

Pictures of one model on one question set: classes, letters, reliability.
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
from sefar_mllm.evaluation.metrics import Calibration, Summary


def score_table(summaries: Mapping[str, Summary], *, control: str | None) -> Table:
    """One row a question set.

    Args:
        summaries: by the name of the set.
        control: which control was run, in words.
    """
    view = Table(
        title=titled("letter likelihood, averaged over the rotations of the options", control),
        caption="macro: mean over classes; strict: right in every rotation; file order: not "
        "rotated; letters: first ones in the file's order, and the spread of their recall; ECE: "
        "expected calibration error",
    )
    for column in ("questions", "n", "sources", "chance", "micro", "macro", "strict"):
        view.add_column(column)
    for column in ("file order", "letters", "ECE"):
        view.add_column(column)
    for name, one in summaries.items():
        letters = " ".join(f"{letter}{count}" for letter, count in one.letters.items())
        view.add_row(
            Text(name),
            str(one.num_questions),
            str(one.num_sources),
            percent(one.chance),
            str(one.micro),
            shown(one.macro, "no classes"),
            percent(one.strict),
            str(one.file_order),
            Text(f"{letters} ({percent(one.letter_spread)})"),
            percent(one.calibration.error),
        )
    return view


def part_table(summaries: Mapping[str, Summary], *, control: str | None) -> Table:
    """One row for each apparatus and each named part of each question set."""
    view = Table(title=titled("apparatus and parts", control))
    for column in ("questions", "part", "n", "sources", "micro", "macro"):
        view.add_column(column)
    for name, one in summaries.items():
        for part_name, part in (one.per_event | one.parts).items():
            view.add_row(
                Text(name),
                Text(part_name if part_name in one.per_event else part_name.replace("_", " ")),
                str(part.num_questions),
                str(part.num_sources),
                shown(part.micro, "no questions"),
                shown(part.macro, "-"),
            )
    return view


def diagnosis_table(diagnoses: Mapping[str, Diagnosis], *, control: str | None) -> Table:
    """One row a question set, and the verdict on each below."""
    verdicts = "\n".join(f"{name}: {one.verdict}" for name, one in diagnoses.items())
    view = Table(title=titled("diagnostics", control), caption=Text(verdicts))
    columns = ("questions", "spoken", "unreadable", "same letter", "spoken - primary")
    for column in (*columns, "file order - primary", "text, sum", "text, mean"):
        view.add_column(column)
    for name, one in diagnoses.items():
        view.add_row(
            Text(name),
            str(one.spoken),
            percent(one.unreadable),
            percent(one.agreement),
            str(one.spoken_gap),
            str(one.rotation_gap),
            str(one.text_sum),
            str(one.text_mean),
        )
    return view


def titled(title: str, control: str | None) -> Text:
    return Text(title if control is None else f"control ({control}): {title}")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def shown(interval: Interval | None, without: str) -> str:
    return without if interval is None else str(interval)


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
