"""A listed path under the spelling that it has on this disk."""

import os
from pathlib import Path
from unicodedata import normalize


def on_disk(path: Path) -> Path:
    """The path, or its other spelling if only that one exists: letters composed or decomposed.

    Archives from a Mac unpack with decomposed letters (NFD), while lists mostly have composed ones
    (NFC). A path of neither spelling is returned as it is, for the error of whoever opens it.
    """
    if os.path.lexists(path):
        return path
    others = (Path(normalize(form, str(path))) for form in ("NFC", "NFD"))
    return next((other for other in others if os.path.lexists(other)), path)
