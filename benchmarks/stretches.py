"""Random stretches of numbered videos: how many are read right, wrong, or not at all.

    python -m benchmarks.stretches --out benchmarks/results

In these files (tests/oracles/numbered_table.py) every picture bears its number, so that a reader's
answer is compared with how the file was made: codecs, containers, groups of pictures, edit lists,
offsets, wrong keyframes and times. Of each stretch five moments are read and, by the reader
`auto`, every picture in order. A stretch counts as wrong if any picture is another than the one
shown at its moment, and as refused if there is a VideoReadError in place of one.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.timing import Row, report_incrementally, result_name
from sefar_core.data.video_backends import choose_file_reader
from tests.oracles.numbered_cases import Case
from tests.oracles.numbered_stretches import clip_outcome, fractions_outcome, stretches
from tests.oracles.numbered_table import CASES

HEAD = ["| file | right | wrong | refused | share refused |", "|---|---|---|---|---|"]


@dataclass(frozen=True, kw_only=True)
class Stretches:
    stretches: int = 500
    """How many of each file."""
    files: tuple[str, ...] = ()
    """Names of files, all by default."""
    reader: str = "auto"
    """Name of the reader: auto or decord."""
    out: Path | None = None
    """Folder for a dated result."""


def counted(case: Case, path: Path, settings: Stretches, read: Callable) -> Counter[str]:
    """Verdicts of a file's stretches; prints the first that is wrong."""
    verdicts: Counter[str] = Counter()
    for stretch in stretches(case, settings.stretches):
        found = [fractions_outcome(case, path, stretch, read)]
        if settings.reader == "auto":
            found.append(clip_outcome(case, path, stretch))
        worst = next(
            verdict
            for verdict in ("wrong", "refused", "right")
            if verdict in {outcome.verdict for outcome in found}
        )
        if worst != "right" and not verdicts[worst]:
            words = next(outcome.words for outcome in found if outcome.verdict == worst)
            print(f"{case.name}: {worst}: {words}", flush=True)
        verdicts[worst] += 1
    return verdicts


def line(name: str, verdicts: Counter[str]) -> Row:
    """A line of the table, and its figures."""
    right, wrong, refused = (verdicts[word] for word in ("right", "wrong", "refused"))
    share = refused / max(verdicts.total(), 1)
    text = f"| {name} | {right} | {wrong} | {refused} | {100 * share:.1f} % |"
    return text, {name: {"right": right, "wrong": wrong, "refused": refused}}


def rows(cases: Sequence[Case], settings: Stretches) -> Iterator[Row]:
    """The table line by line, and the totals behind it."""
    read = choose_file_reader(settings.reader)
    yield from ((words, {}) for words in HEAD)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            path = Path(folder) / case.name
            case.make(path)
            verdicts = counted(case, path, settings, read)
            total += verdicts
            yield line(case.name, verdicts)
            path.unlink()
    yield line(f"all {len(cases)} files", total)


def main(settings: Stretches) -> None:
    unknown = set(settings.files) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"error: no such file: {', '.join(sorted(unknown))}")
    cases = [case for case in CASES if not settings.files or case.name in settings.files]
    report_incrementally(result_name("stretches", settings), rows(cases, settings), settings.out)


if __name__ == "__main__":
    main(tyro.cli(Stretches, description=__doc__))
