"""Pictures of a comparison: accuracies with intervals, classes, letters, learning curves."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sefar_core.plots import plt, save
from sefar_core.runs.folder import read_metrics
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.plan import TRAININGS
from sefar_mllm.comparison.table import FIRST, SetNumbers

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
