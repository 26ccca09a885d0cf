"""Where a model folder says that its language model and its encoder lie.

A folder is recorded by its absolute path, so that it is found from any working directory and is
never mistaken for a name of the hub. Older files hold paths as they were typed.
"""

import os
from pathlib import Path


def lasting_place(name: str | Path) -> str:
    """What to record of a model: an existing folder's absolute path, or the name as it is."""
    return os.path.abspath(name) if os.path.isdir(name) else str(name)


def recorded_folder(recorded: str, model_folder: Path) -> Path | None:
    """The folder that was recorded; None if it is not there.

    Args:
        recorded: absolute path, or one relative to the working directory or the model folder.
        model_folder: holds the record.
    """
    if not recorded:
        return None
    places = (Path(recorded), model_folder / recorded)
    return next((place for place in places if place.is_dir()), None)
