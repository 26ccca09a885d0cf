"""Plots of what a recognizer does: confusion, trust in pseudo-labels, training curves.

Importing this module sets matplotlib up for names of any script: classes, question sets, runs.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

# Of other scripts than matplotlib's own font has; the first of a script that is installed is taken.
FONTS = (
    "Noto Sans CJK SC, Noto Sans CJK JP, Noto Sans CJK KR, Noto Sans SC, Noto Sans JP, "
    "Noto Sans KR, Source Han Sans SC, WenQuanYi Zen Hei, WenQuanYi Micro Hei, "
    "Droid Sans Fallback, IPAGothic, "
    "NanumGothic, PingFang SC, Hiragino Sans, Apple SD Gothic Neo, Microsoft YaHei, Malgun Gothic, "
    "Arial Unicode MS, Noto Sans Devanagari, Noto Sans Thai"
).split(", ")


def print_names_as_they_are() -> None:
    """Have `$`, `_` and `^` in texts printed, not typeset, and other scripts where a font has them.

    matplotlib tries one font family after the other for each letter, and would warn at every text
    about families that are not installed.
    """
    installed = {font.name for font in font_manager.fontManager.ttflist}
    matplotlib.rcParams["text.parse_math"] = False
    of_other_scripts = [name for name in FONTS if name in installed]
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", *of_other_scripts]


print_names_as_they_are()


def plot_confusion(counts: np.ndarray, names: Sequence[str], path: Path) -> None:
    """A PNG of counts of clips (true, guessed): the shade of a cell is its share of the row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.32 * len(names)
    figure, axes = plt.subplots(figsize=(side + 1.5, side))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    if len(names) <= 40:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.5 else "black"
                text = axes.text(column, row, str(count), color=color, fontsize=6)
                text.set(ha="center", va="center")
    save(figure, path)


def plot_trust(trust: np.ndarray, right: np.ndarray, path: Path) -> None:
    """A PNG of how far right pseudo-labels are trusted, beside wrong ones.

    `trust` is a weight a clip, in [0, 1]; `right`, whether its pseudo-label is the true class.
    """
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    edges = np.linspace(0, 1, 26).tolist()
    for kind, color, name in ((right, "tab:green", "right"), (~right, "tab:red", "wrong")):
        mean = f"mean {trust[kind].mean():.2f}" if kind.any() else "none"
        label = f"{name} ({int(kind.sum())} clips, {mean})"
        axes.hist(trust[kind], bins=edges, alpha=0.55, color=color, label=label)
    axes.set_xlabel("trust in the pseudo-label")
    axes.set_ylabel("clips")
    axes.legend()
    save(figure, path)


def plot_curves(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]], path: Path, *, ylabel: str
) -> None:
    """A PNG of lines over training steps: of each name its steps and values."""
    figure, axes = plt.subplots(figsize=(5.5, 3.2))
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.legend()
    save(figure, path)


def save(figure, path: Path) -> None:
    """Write a figure as PNG. A letter that no installed font has is drawn as a box."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.tight_layout()
            figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)
