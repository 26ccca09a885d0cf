"""Where FineGym's lists are, for the tests marked `lists`."""

import os
from pathlib import Path

import pytest


def finegym_folder() -> Path:
    """The folder that SEFAR_FINEGYM_DIR names; the test is skipped where it is not set."""
    if "SEFAR_FINEGYM_DIR" not in os.environ:
        pytest.skip("needs the FineGym lists: set SEFAR_FINEGYM_DIR to their folder")
    return Path(os.environ["SEFAR_FINEGYM_DIR"])
