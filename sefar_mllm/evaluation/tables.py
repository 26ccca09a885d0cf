"""The numbers for the terminal: accuracies in percent with their 95 % intervals.

Names that others chose are `Text`, which rich prints as it is: it takes `[...]` in a plain string
for markup and `:name:` for an emoji.
"""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from sefar_core.intervals import Interval
from sefar_mllm.evaluation.diagnostics import Diagnosis
from sefar_mllm.evaluation.summary import Summary


def score_table(summaries: Mapping[str, Summary], *, control: str | None) -> Table:
    """One row a question set.

    Args:
        summaries: by the name of the set.
        control: which control was run, in words.
    """
    view = Table(
        title=titled("letter likelihood, averaged over the rotations of the options", control),
        caption="macro: mean over classes; strict: right in every rotation; file order: not "
        "rotated; letters: first ones in the file's order, and the spread of their recall; ECE: "
        "expected calibration error",
    )
    for column in ("questions", "n", "sources", "chance", "micro", "macro", "strict"):
        view.add_column(column)
    for column in ("file order", "letters", "ECE"):
        view.add_column(column)
    for name, one in summaries.items():
        letters = " ".join(f"{letter}{count}" for letter, count in one.letters.items())
        view.add_row(
            Text(name),
            str(one.num_questions),
            str(one.num_sources),
            percent(one.chance),
            str(one.micro),
            shown(one.macro, "no classes"),
            percent(one.strict),
            str(one.file_order),
            Text(f"{letters} ({percent(one.letter_spread)})"),
            percent(one.calibration.error),
        )
    return view


def part_table(summaries: Mapping[str, Summary], *, control: str | None) -> Table:
    """One row for each apparatus and each named part of each question set."""
    view = Table(title=titled("apparatus and parts", control))
    for column in ("questions", "part", "n", "sources", "micro", "macro"):
        view.add_column(column)
    for name, one in summaries.items():
        for part_name, part in (one.per_event | one.parts).items():
            view.add_row(
                Text(name),
                Text(part_name if part_name in one.per_event else part_name.replace("_", " ")),
                str(part.num_questions),
                str(part.num_sources),
                shown(part.micro, "no questions"),
                shown(part.macro, "-"),
            )
    return view


def diagnosis_table(diagnoses: Mapping[str, Diagnosis], *, control: str | None) -> Table:
    """One row a question set, and the verdict on each below."""
    verdicts = "\n".join(f"{name}: {one.verdict}" for name, one in diagnoses.items())
    view = Table(title=titled("diagnostics", control), caption=Text(verdicts))
    columns = ("questions", "spoken", "unreadable", "same letter", "spoken - primary")
    for column in (*columns, "file order - primary", "text, sum", "text, mean"):
        view.add_column(column)
    for name, one in diagnoses.items():
        view.add_row(
            Text(name),
            str(one.spoken),
            percent(one.unreadable),
            percent(one.agreement),
            str(one.spoken_gap),
            str(one.rotation_gap),
            str(one.text_sum),
            str(one.text_mean),
        )
    return view


def titled(title: str, control: str | None) -> Text:
    return Text(title if control is None else f"control ({control}): {title}")


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def shown(interval: Interval | None, without: str) -> str:
    return without if interval is None else str(interval)
