"""Write report.html of a demo run: tables, plots, sample clips, and what ran.

    scripts/report.py --out runs/demo

The page is one file that contains its pictures. Every number is read from a file that a step of the
demo wrote; only differences between models are computed here.
"""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sefar_core.cli import refuse_unwritable, start

import tyro

ENCODERS = ("sefar", "supervised", "random", "constant")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; color: #222; }
table { border-collapse: collapse; margin: 0.6em 0 1.4em; }
td, th { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: left; }
th { background: #f3f5f8; } img { max-width: 100%; } pre { background: #f6f6f6; padding: 0.8em; }
.note { color: #555; } .strip img { image-rendering: pixelated; width: 640px; }
"""


@dataclass(frozen=True, kw_only=True)
class Report:
    out: Path = Path("runs/demo")
    """Folder of the demo run, which gets report.html."""
    samples: int = 6
    """Number of test clips shown with question and answer."""

    def __post_init__(self):
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")


def main(settings: Report) -> None:
    from qa_data.files import write_text
    from sefar_core.run_dir import surroundings

    out = settings.out
    refuse_unwritable(files=[out / "report.html"])
    sections = [
        ("Recognizing actions from few labels", recognition(out)),
        ("Answering questions about videos", answers(out)),
        ("The blind audit of the questions", audits(out)),
        ("Sample clips", samples(out, settings.samples)),
        ("A conversation", f"<pre>{html.escape((out / 'chat.txt').read_text())}</pre>"),
        ("The classes", picture(out / "gym/contact_sheet.png")),
        ("What ran", ran(out, surroundings())),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections)
    write_text(
        out / "report.html",
        f"<!doctype html><meta charset=utf-8><title>SeFAR demo</title><style>{STYLE}</style>"
        f"<h1>SeFAR on synthetic gymnasts</h1>{body}",
    )
    print(f"wrote {out / 'report.html'}")


def read_json(path: Path) -> Any:
    """A file that a step of the demo wrote.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as cause:
        raise ValueError(
            f"{path} is damaged ({cause}); delete it and run the step of the demo again"
        ) from cause


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = ("".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table><tr>{head}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{path.stem}">'


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, limits: Sequence[float] | None) -> str:
    from sefar_core.intervals import in_percent

    return "-" if value is None else in_percent(value, limits)


def recognition(out: Path) -> str:
    """Scores of both recognizers with their controls, and what they confuse."""
    rows, verdicts = [], []
    for run in ("sefar", "supervised"):
        scores = read_json(out / run / "evaluation/test/scores.json")["rows"]
        for name, row in scores.items():
            rows.append(
                (
                    run,
                    name,
                    with_interval(row["top1"], row["top1_interval"]),
                    percent(row["top5"]),
                    percent(row["mean_class"]),
                    with_interval(row["direction"], row["direction_interval"]),
                    percent(row["majority"]),
                )
            )
        if trust := scores.get("teacher", {}).get("trust"):
            verdicts.append(
                f"The teacher's pseudo-labels are right for {percent(trust['pseudo_labels_right'])}"
                f" % of the test clips; mean trust in percent {percent(trust['trust_of_right'])}"
                f" where right and {percent(trust['trust_of_wrong'])} where wrong."
            )
        verdicts.append(background_verdict(run, scores))
    header = (
        "run",
        "network",
        "top-1 % [95 %]",
        "top-5",
        "mean class",
        "direction % [95 %]",
        "majority",
    )
    evaluation = out / "sefar/evaluation/test"
    return (
        '<p class="note">Test athletes and arenas were never seen in training. Intervals resample '
        "source videos. Direction: the right one of two classes that differ in direction alone. "
        "Both runs have the same labels, labeled steps, batch and dropout.</p>"
        + table(header, rows)
        + f"<p>{difference(out)} {' '.join(verdicts)}</p>"
        + picture(evaluation / "student_confusion.png")
        + picture(evaluation / "trust.png")
        + picture(evaluation / "curves.png")
    )


def background_verdict(run: str, scores: dict) -> str:
    """Whether arenas alone predict more than the commonest class does."""
    empty = scores["student, background only"]
    share, clips = empty["majority"], empty["num_clips"]
    error = (share * (1 - share) / clips) ** 0.5
    away = (empty["top1"] - share) / error
    return (
        f"On the background alone {run} is {away:+.1f} standard errors away from the share of the "
        f"commonest class."
    )


def difference(out: Path) -> str:
    """SeFAR's student minus the supervised run's, on the same clips."""
    import numpy as np

    from qa_data.manifest import by_split, read_manifest
    from sefar_core.data.group_split import group_key
    from sefar_core.intervals import clustered_interval, in_percent

    clips = by_split(read_manifest(out / "splits/manifest.csv"), "test")
    labels = np.array([clip.label for clip in clips])
    right = {
        run: np.load(out / run / "evaluation/test/student_probs.npy").argmax(axis=1) == labels
        for run in ("sefar", "supervised")
    }
    gain = right["sefar"].astype(float) - right["supervised"].astype(float)
    limits = clustered_interval(gain, [group_key(clip) for clip in clips])
    contains_zero = limits is None or limits[0] <= 0 <= limits[1]
    verdict = "an interval that contains 0" if contains_zero else "an interval that excludes 0"
    return (
        f"SeFAR minus supervised-only, top-1, in points: "
        f"{in_percent(gain.mean(), limits, sign='+')}"
        f"{', ' + verdict if limits else ''}; one seed of each."
    )


def answers(out: Path) -> str:
    """Every encoder in the language model on both question sets, and paired differences."""
    from sefar_core.intervals import Interval

    rows = []
    runs = [(name, "test") for name in ENCODERS] + [("sefar", "test-shuffled")]
    for name, folder in runs:
        sets = read_json(out / "mllm" / name / folder / "metrics.json")["sets"]
        for set_name, one in sets.items():
            rule = "hard" if "hard" in set_name else "public"
            shown = f"{name}, wrong videos" if folder == "test-shuffled" else name
            micro, macro = (Interval(**one[kind]) for kind in ("micro", "macro"))
            rows.append((rule, shown, str(micro), str(macro), percent(one["strict"])))
    header = (
        "questions",
        "encoder",
        "micro % [95 %]",
        "class mean % [95 %]",
        "right in all rotations",
    )
    return (
        '<p class="note">One protocol for all encoders: same frames, tokens, projector, steps. '
        "Letter likelihoods are averaged over all rotations of the options. The encoder "
        "<i>constant</i> sees nothing.</p>"
        + table(header, sorted(rows, key=lambda row: row[0] != "hard"))
        + table(("hard questions", "difference, micro points [95 %]"), paired(out))
    )


def paired(out: Path) -> list[tuple[str, str]]:
    """Paired differences on the hard questions."""
    import numpy as np

    from sefar_core.intervals import in_percent
    from sefar_mllm.evaluation.significance import compare
    from sefar_mllm.scoring import read_predictions

    def predictions(name: str, folder: str = "test"):
        files = sorted((out / "mllm" / name / folder).glob("predictions-*hard*.jsonl"))
        return read_predictions(files[0])

    contests = [(f"sefar minus {rival}", ("sefar",), (rival,)) for rival in ENCODERS[1:]]
    blind = ("constant",)
    contests.append(("sefar shown wrong videos, minus constant", ("sefar", "test-shuffled"), blind))
    rows = []
    for name, first, second in contests:
        gap = compare(
            predictions(*first),
            predictions(*second),
            resamples=2000,
            rng=np.random.default_rng(0),
        ).micro
        rows.append((name, in_percent(gap.value, gap.limits, sign="+")))
    return rows


def audits(out: Path) -> str:
    """How many test questions can be answered without the video."""
    parts = []
    for rule in ("public", "hard"):
        found = read_json(out / f"qa-{rule}/audit.json")
        rows = [
            (name, percent(score["micro"]), percent(score["macro"]))
            for name, score in found["audits"]["test"]["rows"].items()
        ]
        parts.append(f"<h3>{rule}</h3>" + table(("answers by", "all %", "mean of classes %"), rows))
    return "".join(parts)


def samples(out: Path, number: int) -> str:
    """Clips as strips of eight frames, with question, options, answer and probabilities."""
    from qa_data.questions import read_questions
    from sefar_mllm.scoring import read_predictions

    questions = {q.question_id: q for q in read_questions(out / "qa-hard/test.jsonl")}
    file = sorted((out / "mllm/sefar/test").glob("predictions-*hard*.jsonl"))[0]
    predictions = read_predictions(file)
    parts = []
    for prediction in predictions[:: max(1, len(predictions) // number)][:number]:
        question = questions[prediction.question_id]
        options = zip(question.options, prediction.probs, strict=True)
        rows = [
            ("right" if place == question.answer else "", option, percent(prob))
            for place, (option, prob) in enumerate(options)
        ]
        strip = film_strip(out / "gym/videos" / f"{question.video}.mp4")
        parts.append(
            f'<p class="strip">{strip}<br>{html.escape(question.stem)}</p>'
            + table(("", "option", "probability %"), rows)
        )
    return "".join(parts)


def film_strip(video: Path) -> str:
    """Eight frames side by side as a picture."""
    import cv2
    from einops import rearrange

    from sefar_core.data.video import read_fractions

    frames = read_fractions(video, [(i + 0.5) / 8 for i in range(8)]).numpy()
    strip = rearrange(frames, "frame height width color -> height (frame width) color")
    _, encoded = cv2.imencode(".png", strip[..., ::-1])
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(video.stem)}">'


def ran(out: Path, here: dict) -> str:
    """Every step with its time, the versions, and the commit."""
    records = [read_json(path) for path in (out / "steps").glob("*.json")]
    rows = [
        (r["title"], f"{r['seconds']:.0f} s", f"{r['peak_gib']:.1f} GiB", " ".join(r["command"]))
        for r in sorted(records, key=lambda r: r["began"])
    ]
    versions = ", ".join(f"{name} {number}" for name, number in here["packages"].items())
    total = sum(r["seconds"] for r in records)
    return (
        f"<p>Commit {here['commit']}, Python {here['python']}, {here['machine']}; {versions}. "
        f"Steps together: {total / 60:.1f} minutes.</p>"
        + table(("step", "time", "largest process so far", "command"), rows)
    )


if __name__ == "__main__":
    start(main, partial(tyro.cli, Report, description=__doc__))
