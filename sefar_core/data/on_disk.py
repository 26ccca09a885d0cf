"""A listed path under the spelling that it has on this disk."""

import os
from pathlib import Path
from unicodedata import normalize


def on_disk(path: Path) -> Path:
    """The path, each part of it in its other spelling where only that one exists: letters composed
    or decomposed.

    Archives from a Mac unpack with decomposed letters (NFD), while lists mostly have composed ones
    (NFC). A part of neither spelling is left as it is, for the error of whoever opens it.
    """
    if os.path.lexists(path):
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        spellings = (found / one for one in (part, normalize("NFC", part), normalize("NFD", part)))
        found = next((one for one in spellings if os.path.lexists(one)), found / part)
    return found
