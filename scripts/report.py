"""Write report.html of a demo run: three numbers, sample clips, tables, plots, and what ran.

    scripts/report.py --out runs/demo

The page is one file that contains its pictures, and needs no script and no network. Every number is
read from a file that a step of the demo wrote; only differences between models are computed here.
"""

import base64
import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sefar_core.cli import refuse_unwritable, start

import tyro

FEW_CLIPS = 200
"""Fewer test clips than these give intervals of 15 points and more: too wide for conclusions."""
ENCODERS = ("sefar", "supervised", "random", "constant")
STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --good: #56d364; --bad: #ff7b72; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5em auto; padding: 0 1em; max-width: 54em; }
h2 { margin-top: 2em; border-top: 1px solid var(--line); padding-top: 0.6em; }
table { border-collapse: collapse; margin: 0.6em 0; font-variant-numeric: tabular-nums; }
td, th { padding: 0.2em 0.7em; border-bottom: 1px solid var(--line); text-align: left; }
td, pre, code { overflow-wrap: anywhere; } th { background: var(--soft); }
pre { background: var(--soft); padding: 0.8em; white-space: pre-wrap; } code { font-size: 12px; }
figure { margin: 0.8em 0; } figure img { max-width: 100%; background: #fff; }
figcaption, .note { font-size: 13px; opacity: 0.85; } .warn { color: var(--bad); }
.numbers, .sheet { display: grid; gap: 0.8em; grid-template-columns: repeat(3, 1fr); }
.numbers div { background: var(--soft); padding: 0.6em 0.9em; } .numbers b { font-size: 26px; }
.sheet figure { margin: 0; } .sheet img { width: 100%; } .sheet figcaption { line-height: 1.3; }
.right { color: var(--good); } .wrong { color: var(--bad); }
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


class Headline(NamedTuple):
    """One of the three numbers of the first screen."""

    title: str
    score: str
    """In percent, with its 95 % interval."""
    chance: str
    meaning: str


def main(settings: Report) -> None:
    from qa_data.files import write_text
    from sefar_core.run_dir import surroundings

    out = settings.out
    refuse_unwritable(files=[out / "report.html"])
    numbers, note = headlines(out), size_note(out)
    sections = [
        ("Test clips and what the recognizer takes them for", contact_sheet(out)),
        ("Recognizing actions from few labels", recognition(out)),
        ("Answering questions about videos", answers(out)),
        ("The blind audit of the questions", audits(out)),
        ("Sample questions", samples(out, settings.samples)),
        ("A conversation", f"<pre>{html.escape((out / 'chat.txt').read_text())}</pre>"),
        ("The classes", classes(out)),
        ("What ran", ran(out, surroundings())),
    ]
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in sections)
    write_text(
        out / "report.html",
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>SeFAR demo</title>'
        f"<style>{STYLE}</style></head><body><h1>SeFAR on synthetic gymnasts</h1>"
        f"{cards(numbers, note)}{body}</body></html>\n",
    )
    for one in numbers:
        print(f"{one.title}: {one.score} %, chance {one.chance} %")
    print(*([note] if note else []), f"wrote {out / 'report.html'}", sep="\n")


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


def figure(picture: bytes, name: str, caption: str, *, kind: str = "png") -> str:
    """A picture with a caption, which is HTML."""
    data = f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
    image = f'<img src="{data}" alt="{html.escape(name)}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(value: float | None, limits: Sequence[float] | None) -> str:
    from sefar_core.intervals import in_percent

    return "-" if value is None else in_percent(value, limits)


def scores(out: Path, run: str) -> dict[str, dict]:
    """A recognizer's rows of scores on the test clips."""
    return read_json(out / run / "evaluation/test/scores.json")["rows"]


def headlines(out: Path) -> list[Headline]:
    """Top-1 and direction accuracy of SeFAR's student, and accuracy on the hard questions."""
    from qa_data.questions import read_questions
    from sefar_core.intervals import Interval

    row = scores(out, "sefar")["student"]
    sets = read_json(out / "mllm/sefar/test/metrics.json")["sets"]
    answered = next(one for name, one in sets.items() if "hard" in name)
    questions = read_questions(out / "qa-hard/test.jsonl")
    guess = sum(1 / len(question.options) for question in questions) / len(questions)
    return [
        Headline(
            "Recognition, top-1",
            with_interval(row["top1"], row["top1_interval"]),
            percent(row["majority"]),
            f"{row['num_clips']} clips of unseen athletes; chance: always the commonest class",
        ),
        Headline(
            "Direction",
            with_interval(row["direction"], row["direction_interval"]),
            "50.0",
            "forward or backward, where two classes differ in that alone",
        ),
        Headline(
            "Question accuracy",
            str(Interval(**answered["micro"])),
            percent(guess),
            f"{len(questions)} hard questions, the language model on SeFAR's tokens",
        ),
    ]


def size_note(out: Path) -> str | None:
    """What limits the conclusions from a small run."""
    clips = scores(out, "sefar")["student"]["num_clips"]
    if clips >= FEW_CLIPS:
        return None
    return f"quick: sizes too small for conclusions ({clips} test clips)"


def cards(numbers: Sequence[Headline], note: str | None) -> str:
    """The three numbers, and the note on a small run."""
    parts = "".join(
        f"<div>{one.title}<br><b>{one.score.partition(' ')[0]} %</b> "
        f"{one.score.partition(' ')[2]}<br>chance level {one.chance} %<br>"
        f'<span class="note">{html.escape(one.meaning)}</span></div>'
        for one in numbers
    )
    warning = f'<p class="warn">{html.escape(note)}</p>' if note else ""
    return (
        f'{warning}<div class="numbers">{parts}</div><p class="note">Brackets: 95 % intervals, '
        "which resample source videos. Rendered figures of twelve classes, one training run: "
        "nothing here is about real gymnastics, or about other seeds.</p>"
    )


def contact_sheet(out: Path) -> str:
    """The first test clip of each class, with the student's two likeliest classes."""
    import numpy as np

    from qa_data.manifest import by_split, read_manifest
    from qa_data.taxonomy import read_categories

    clips = by_split(read_manifest(out / "splits/manifest.csv"), "test")
    names = {label: one.text for label, one in read_categories(out / "gym/categories.txt").items()}
    probs = np.load(out / "sefar/evaluation/test/student_probs.npy")
    first = {clip.label: place for place, clip in reversed(list(enumerate(clips)))}
    parts = []
    for label, place in sorted(first.items()):
        guesses = "<br>".join(
            f'<span class="{"right" if guess == label else "wrong"}">'
            f"{'✓' if guess == label else '✗'} {html.escape(names[guess])} "
            f"{percent(probs[place, guess])} %</span>"
            for guess in probs[place].argsort()[::-1][:2].tolist()
        )
        strip = film_strip(out / "gym/videos" / clips[place].path, frames=4)
        caption = f"<b>{html.escape(names[label])}</b><br>{guesses}"
        parts.append(figure(strip, names[label], caption, kind="jpeg"))
    return (
        f'<div class="sheet">{"".join(parts)}</div><p class="note">The first test clip of each '
        "class (bold), and the two classes that SeFAR's student finds likeliest. It shows what the "
        "input looks like and which moves are mistaken for one another, not how often: that is the "
        "confusion matrix below.</p>"
    )


def recognition(out: Path) -> str:
    """Scores of both recognizers with their controls, and what they confuse."""
    rows, verdicts = [], []
    for run in ("sefar", "supervised"):
        found = scores(out, run)
        for name, row in found.items():
            top1 = with_interval(row["top1"], row["top1_interval"])
            direction = with_interval(row["direction"], row["direction_interval"])
            rows.append((run, name, top1, direction, percent(row["mean_class"])))
        if trust := found.get("teacher", {}).get("trust"):
            verdicts.append(
                f"The teacher's pseudo-labels are right for {percent(trust['pseudo_labels_right'])}"
                f" % of the test clips; mean trust in percent {percent(trust['trust_of_right'])}"
                f" where right and {percent(trust['trust_of_wrong'])} where wrong."
            )
        verdicts.append(background_verdict(run, found))
    header = ("run", "network and input", "top-1 % [95 %]", "direction % [95 %]", "mean class %")
    plots = {
        "student_confusion": "Each row is a true class, each column what SeFAR's student took it "
        "for. Dark cells off the diagonal are moves that look alike to it. A row has few clips, so "
        "a single cell says little; how sure the network was is not shown.",
        "trust": "How far the teacher's pseudo-labels would be trusted, right ones beside wrong "
        "ones. Apart means that the weight tells them apart. These are test clips: it does not "
        "show what trust did to the training.",
        "curves": "The losses of SeFAR's training steps, and mean trust: whether training settled. "
        "A low loss does not show that unseen clips are recognized.",
    }
    evaluation = out / "sefar/evaluation/test"
    figures = [
        figure((evaluation / f"{name}.png").read_bytes(), name.replace("_", " "), caption)
        for name, caption in plots.items()
    ]
    return (
        '<p class="note">Test athletes and arenas were never seen in training. Both runs have the '
        "same labels, labeled steps, batch and dropout. The controls show what a network uses: one "
        "middle frame has no motion, shuffled frames have no direction, the background no gymnast."
        f"</p>{table(header, rows)}<p>{difference(out)} {' '.join(verdicts)}</p>" + "".join(figures)
    )


def background_verdict(run: str, found: dict) -> str:
    """Whether arenas alone predict more than the commonest class does."""
    empty = found["student, background only"]
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


def finished(out: Path) -> dict[str, dict]:
    """The records of the steps that were not overtaken by an earlier step's change."""
    records = {path.stem: read_json(path) for path in (out / "steps").glob("*.json")}
    return {name: one for name, one in records.items() if one["command"] is not None}


def encoders(out: Path) -> list[str]:
    """The encoders that the run has, sefar first."""
    steps = finished(out)
    return [name for name in ENCODERS if f"score_{name}" in steps]


def answers(out: Path) -> str:
    """Every encoder in the language model on both question sets, and paired differences."""
    from sefar_core.intervals import Interval

    rows = []
    runs = [(name, "test") for name in encoders(out)] + [("sefar", "test-shuffled")]
    for name, folder in runs:
        sets = read_json(out / "mllm" / name / folder / "metrics.json")["sets"]
        for set_name, one in sets.items():
            rule = "hard" if "hard" in set_name else "public"
            shown = f"{name}, wrong videos" if folder == "test-shuffled" else name
            micro, macro = (Interval(**one[kind]) for kind in ("micro", "macro"))
            rows.append((rule, shown, str(micro), str(macro), percent(one["strict"])))
    header = ("questions", "encoder", "all % [95 %]", "class mean % [95 %]", "in all rotations %")
    return (
        '<p class="note">One protocol for all encoders: same frames, tokens, projector, steps. '
        "Letter likelihoods are averaged over all rotations of the options; the last column asks "
        "for the right letter in every one of them. The encoder <i>constant</i> sees nothing, so "
        "what it answers right needs no video. The language model is a toy that matches words: "
        "nothing here is about the language of a large one.</p>"
        + table(header, sorted(rows, key=lambda row: row[0] != "hard"))
        + table(("hard questions", "difference, points [95 %]"), paired(out))
    )


def paired(out: Path) -> list[tuple[str, str]]:
    """Paired differences on the hard questions."""
    import numpy as np

    from sefar_core.intervals import in_percent
    from sefar_mllm.evaluation.significance import compare_seeds

    contests = [(f"sefar minus {rival}", "test", rival) for rival in encoders(out)[1:]]
    contests.append(("sefar shown wrong videos, minus constant", "test-shuffled", "constant"))
    rows = []
    for name, folder, rival in contests:
        ours, theirs = hard_predictions(out, "sefar", folder), hard_predictions(out, rival)
        rng = np.random.default_rng(0)
        gap = compare_seeds([ours], [theirs], resamples=2000, rng=rng).micro
        rows.append((name, in_percent(gap.value, gap.limits, sign="+")))
    return rows


def hard_predictions(out: Path, encoder: str, folder: str = "test"):
    """The predictions for the hard test questions."""
    from sefar_mllm.scoring import read_predictions

    (path,) = (out / "mllm" / encoder / folder).glob("predictions-*hard*.jsonl")
    return read_predictions(path)


def audits(out: Path) -> str:
    """How many test questions can be answered without the video."""
    parts = [
        '<p class="note">How many of the test questions classifiers answer that see no video: by '
        "chance alone it is one in four. Much more shows a leak in how options are drawn; the "
        "chance level itself does not show that none is left.</p>"
    ]
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

    questions = {q.question_id: q for q in read_questions(out / "qa-hard/test.jsonl")}
    predictions = hard_predictions(out, "sefar")
    parts = []
    for prediction in predictions[:: max(1, len(predictions) // number)][:number]:
        question = questions[prediction.question_id]
        options = zip(question.options, prediction.probs, strict=True)
        rows = [
            ("right" if place == question.answer else "", option, percent(prob))
            for place, (option, prob) in enumerate(options)
        ]
        strip = film_strip(out / "gym/videos" / f"{question.video}.mp4", frames=8)
        caption = f"{html.escape(question.stem)} Options and the probability of each:"
        parts.append(figure(strip, question.video, caption, kind="jpeg"))
        parts.append(table(("", "option", "probability %"), rows))
    note = "Hard questions at equal distances in the test set, not chosen by their answers."
    return f'<p class="note">{note}</p>' + "".join(parts)


def film_strip(video: Path, *, frames: int) -> bytes:
    """Frames of a clip at equal distances, side by side, as a JPEG."""
    import cv2
    from einops import rearrange

    from sefar_core.data.video import read_fractions

    found = read_fractions(video, [(i + 0.5) / frames for i in range(frames)]).numpy()
    strip = rearrange(found, "frame height width color -> height (frame width) color")
    return cv2.imencode(".jpg", strip[..., ::-1])[1].tobytes()


def classes(out: Path) -> str:
    """A rendered clip of every class."""
    caption = (
        "One clip of each class with its label. Forward and backward differ in the order of the "
        "frames alone. They are drawn: real bodies and cameras differ in many more ways."
    )
    return figure((out / "gym/contact_sheet.png").read_bytes(), "the classes", caption)


def ran(out: Path, here: dict) -> str:
    """Every step with its time and command, the versions, and the commit."""
    records = sorted(finished(out).values(), key=lambda one: one["began"])
    rows = "".join(
        f"<tr><td>{html.escape(one['title'])}<br><code>{html.escape(' '.join(one['command']))}"
        f"</code></td><td>{one['seconds']:.0f} s</td><td>{one['peak_gib']:.1f} GiB</td></tr>"
        for one in records
    )
    versions = ", ".join(f"{name} {number}" for name, number in here["packages"].items())
    total = sum(one["seconds"] for one in records)
    return (
        f"<p>Commit {here['commit']}, Python {here['python']}, {here['machine']}; {versions}. "
        f"Steps together: {total / 60:.1f} minutes. Memory is that of the largest process so far."
        f"</p><table><tr><th>step</th><th>time</th><th>memory</th></tr>{rows}</table>"
    )


if __name__ == "__main__":
    start(main, partial(tyro.cli, Report, description=__doc__))
