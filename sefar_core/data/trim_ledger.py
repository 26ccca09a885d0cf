"""Which seconds of its source video each trimmed clip holds, and how large its file is.

One row a clip, written when the file has its name: what is in the ledger is not cut again, unless
the annotation or the file has changed.
"""

from collections.abc import Mapping
from pathlib import Path

from sefar_core.runs.folder import write_text

LEDGER = "trimmed.csv"
HEADER = "id,start_s,end_s,bytes"


class TrimError(ValueError):
    """Cutting that cannot begin. The message says what is missing or wrong, and the mend."""


def read_ledger(path: Path) -> dict[str, str]:
    """The ledger's last row for each clip id; a last row without line end was never finished.

    Raises:
        TrimError: the file is not a ledger.
    """
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    header, *rows = text[: text.rfind("\n") + 1].splitlines() or [""]
    odd = next((row for row in rows if row.count(",") != HEADER.count(",")), None)
    if header != HEADER or odd is not None:
        raise TrimError(
            f"{path} is no ledger of cuts: found {odd or header!r:.80}, expected rows of {HEADER}; "
            f"delete it, and every clip that is there is measured instead"
        )
    return {row.partition(",")[0]: row for row in rows}


def write_ledger(path: Path, rows: Mapping[str, str]) -> None:
    """Write the ledger anew, all or nothing."""
    write_text(path, "".join(f"{row}\n" for row in (HEADER, *rows.values())))


def ledger_row(clip_id: str, start_s: float, end_s: float, size: int) -> str:
    """The row of a clip: its times in the source video, seconds, and its file's bytes."""
    return f"{clip_id},{start_s},{end_s},{size}"
