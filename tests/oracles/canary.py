"""A pickle that would run a program."""

import os
from pathlib import Path


class Canary:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
