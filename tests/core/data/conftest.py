"""Video files that are written once a session and never changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.oracles.numbered_table import BY_NAME
from tests.oracles.videos import write_referring_clip


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """Writes a numbered video of the table, by its name, when it is first needed."""
    folder = tmp_path_factory.mktemp("numbered")

    def path_of(name: str) -> Path:
        path = folder / name
        if not path.exists():
            BY_NAME[name].make(path)
        return path

    return path_of


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """30 frames at 30 a second, a keyframe every 10, with frames that refer to later ones."""
    return write_referring_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")
