"""Names that others chose come out in pictures as they are."""

import warnings

import cv2
import numpy as np
import pytest

from sefar_core import plots
from sefar_core.plots import plot_confusion, plot_curves, plt

NAMES = [
    "costs $5^{ and $6_}",
    "$x^2$",
    "a_b^c",
    "\\frac{1}{2}",
    "salto [on/off]",
    "跳躍",
    "도마 ä",
]


def test_every_name_is_drawn_and_no_warning_is_shown(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(np.eye(len(NAMES), dtype=int), NAMES, tmp_path / "confusion.png")
        plot_curves({NAMES[0]: ([1, 2], [0.5, 0.4])}, tmp_path / "curves.png", ylabel=NAMES[1])
    for name in ("confusion.png", "curves.png"):
        assert cv2.imread(str(tmp_path / name)).std() > 10


def test_signs_of_formulas_are_letters(tmp_path):
    """As pictures: `$x^2$` is wider than `x^2`, whose letters stand on one line."""
    ink = {}
    for name in ("$x^2$", "x^2", "$$"):
        figure, axes = plt.subplots(figsize=(3, 1))
        axes.axis("off")
        axes.text(0, 0.5, name)
        plots.save(figure, tmp_path / "text.png")
        ink[name] = (cv2.imread(str(tmp_path / "text.png")) < 128).any(axis=(0, 2)).sum()
    assert ink["$x^2$"] == pytest.approx(ink["x^2"] + ink["$$"], abs=4)
