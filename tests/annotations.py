"""Where published annotations of other data sets are, for the tests marked `annotations`."""

import os
from pathlib import Path

import pytest


def annotations_folder() -> Path:
    """The folder that SEFAR_ANNOTATIONS_DIR names; the test is skipped where it is not set."""
    if "SEFAR_ANNOTATIONS_DIR" not in os.environ:
        pytest.skip("needs published annotations: set SEFAR_ANNOTATIONS_DIR to their folder")
    return Path(os.environ["SEFAR_ANNOTATIONS_DIR"])
