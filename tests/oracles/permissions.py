"""Which files of a folder others may not read although the umask lets them."""

import stat
from pathlib import Path


def unlike_opened(folder: Path) -> list[str]:
    """Files whose permissions differ from those of a file that is opened there."""
    opened = folder / "opened"
    opened.touch()
    usual = stat.S_IMODE(opened.stat().st_mode)
    opened.unlink()
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(file.name for file in files if stat.S_IMODE(file.stat().st_mode) != usual)
