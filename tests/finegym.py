"""Where FineGym's lists are, for the tests marked `lists`."""

import os
from functools import cache
from pathlib import Path

import pytest

from qa_data.finegym import read_elements, to_clips
from qa_data.manifest import Clip
from qa_data.taxonomy import read_categories


def finegym_folder() -> Path:
    """The folder that SEFAR_FINEGYM_DIR names; the test is skipped where it is not set."""
    if "SEFAR_FINEGYM_DIR" not in os.environ:
        pytest.skip("needs the FineGym lists: set SEFAR_FINEGYM_DIR to their folder")
    return Path(os.environ["SEFAR_FINEGYM_DIR"])


@cache
def benchmark_clips(name: str) -> tuple[list[Clip], list[Clip]]:
    """Training and test clips of `gym99` or `gym288`, as its lists have them."""
    folder = finegym_folder()
    classes = read_categories(folder / f"{name}_categories.txt")
    train = read_elements(folder / f"{name}_train_element_v1.1.txt")
    test = read_elements(folder / f"{name}_val_element.txt")
    return to_clips(train, classes, split="labeled"), to_clips(test, classes, split="test")
