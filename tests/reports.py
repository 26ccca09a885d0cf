"""Where the failing inputs of public reports are, for the tests marked `reports`."""

import os
from pathlib import Path

import pytest


def reports_folder() -> Path:
    """The folder that SEFAR_REPORTS_DIR names; the test is skipped where it is not set."""
    if "SEFAR_REPORTS_DIR" not in os.environ:
        pytest.skip("needs the inputs of public reports: set SEFAR_REPORTS_DIR to their folder")
    return Path(os.environ["SEFAR_REPORTS_DIR"])
