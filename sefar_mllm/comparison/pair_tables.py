"""The page's tables of paired differences: between rows, and of a row with itself."""

from collections.abc import Sequence

from sefar_mllm.comparison.plan import ROWS, SHOWINGS
from sefar_mllm.comparison.table import FIRST, SetNumbers
from sefar_mllm.comparison.verdict import signed
from sefar_mllm.evaluation.seeds import SeedComparison


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def difference_table(one: SetNumbers) -> str:
    """`sefar` minus each row, with McNemar's p-value of each seed."""
    rows = [
        [
            row.name,
            *points(one.differences[row.name]),
            ", ".join(f"{p:.2g}" for p in one.mcnemar_p[row.name]),
        ]
        for row in ROWS
        if row.name in one.differences
    ]
    return markdown([f"{FIRST} minus", "class mean", "micro", "McNemar p"], rows)


def loss_table(one: SetNumbers) -> str:
    """What each model loses under each change, and whether `sefar` loses more."""
    rows = [
        [
            row.of,
            row.says,
            *points(one.losses[row.name]),
            *(points(one.more_lost[row.name]) if row.name in one.more_lost else ("-", "-")),
        ]
        for row in SHOWINGS
        if row.name in one.losses
    ]
    header = ["row", "shown", "own minus shown, class mean", "own minus shown, micro"]
    header += [f"{FIRST} loses more, class mean", f"{FIRST} loses more, micro"]
    return markdown(header, rows)


def points(gap: SeedComparison) -> tuple[str, str]:
    """Class mean and micro, in points."""
    return "no classes" if gap.macro is None else signed(gap.macro), signed(gap.micro)
