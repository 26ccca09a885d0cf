"""The rows of the comparison by name: encoders, controls C0 to C12, and what each rules out.

Three kinds. A `Training` is a language model fine-tuned once for each seed. A `Showing` asks a
trained model once more and shows it something else. A `Standalone` row needs no fine-tuning. The
controls without a row of their own are columns or sections of the table: C9 is the audit of the
questions beside the rows, C12 the accuracy on unseen sources, C8 the check that all matched rows
share moments, number of tokens, questions, steps and seeds.
"""

from dataclasses import dataclass
from typing import Literal

Lessons = Literal["as_written", "wrong_videos", "wrong_answers"]
Shown = Literal[
    "own_video", "wrong_videos", "reversed", "shuffled", "middle", "letters_digits", "letters_drawn"
]
BLIND = "constant"


@dataclass(frozen=True, kw_only=True)
class Training:
    """A model that is fine-tuned on tokens of one encoder."""

    name: str
    encoder: str
    control: str = ""
    """Which control of the protocol it is; empty for the rivals themselves."""
    says: str
    lessons: Lessons = "as_written"
    matched: bool = True
    """Under the common budget of tokens; ablations with fewer tokens are not."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """The trained model of a row, shown something else in the test."""

    name: str
    of: str
    control: str
    says: str
    shown: Shown


@dataclass(frozen=True, kw_only=True)
class Standalone:
    """A row without fine-tuning."""

    name: str
    kind: Literal["rule", "text", "head", "probe"]
    control: str
    says: str
    encoder: str | None = None


Row = Training | Showing | Standalone

RIVALS = (
    Training(name="sefar", encoder="sefar", says="SeFAR's frame tokens"),
    Training(name="clip", encoder="clip", says="CLIP ViT-L/14"),
    Training(name="eva", encoder="eva", says="EVA-CLIP ViT-g/14"),
    Training(
        name="supervised",
        encoder="supervised",
        control="C7",
        says="the same network on the same labels, without SeFAR",
    ),
    Training(name="clip_probe", encoder="clip_probe", control="C7", says="CLIP given the labels"),
    Training(name="eva_probe", encoder="eva_probe", control="C7", says="EVA given the labels"),
    Training(
        name="random",
        encoder="random",
        control="C5",
        says="the same network with random weights, drawn anew for each seed",
    ),
    Training(name=BLIND, encoder="constant", control="C1", says="blind: one value for every clip"),
)
ABLATIONS = (
    Training(
        name="sefar_elements",
        encoder="sefar_elements",
        says="the class token of each element in place of frame tokens",
        matched=False,
    ),
    Training(
        name="sefar_fused",
        encoder="sefar_fused",
        says="the one feature that SeFAR's classifier sees",
        matched=False,
    ),
)
TRAINED_WRONG = (
    Training(
        name="sefar-trained_on_wrong_videos",
        encoder="sefar",
        control="C3",
        says="trained on another clip's video",
        lessons="wrong_videos",
    ),
    Training(
        name="sefar-trained_on_wrong_answers",
        encoder="sefar",
        control="C11",
        says="trained on answers permuted among the questions",
        lessons="wrong_answers",
    ),
)
TRAININGS = (*RIVALS, *ABLATIONS, *TRAINED_WRONG)

WRONG_VIDEOS = tuple(
    Showing(
        name=f"{row.name}-wrong_videos",
        of=row.name,
        control="C3",
        says="another clip's video shown in the test",
        shown="wrong_videos",
    )
    for row in RIVALS
    if row.name != BLIND
)
ORDERS: dict[Shown, str] = {
    "reversed": "frames in reversed order",
    "shuffled": "frames shuffled",
    "middle": "the middle frame, repeated",
}
FRAME_ORDER = tuple(
    Showing(name=f"{name}-{order}", of=name, control="C4", says=says, shown=order)
    for name in ("sefar", "clip", "eva", "supervised")
    for order, says in ORDERS.items()
)
LETTERS = (
    Showing(
        name="sefar-letters_digits",
        of="sefar",
        control="C10",
        says="options called 1 to 4",
        shown="letters_digits",
    ),
    Showing(
        name="sefar-letters_drawn",
        of="sefar",
        control="C10",
        says="options called by letters drawn from E to Z",
        shown="letters_drawn",
    ),
)
SHOWINGS = (*WRONG_VIDEOS, *FRAME_ORDER, *LETTERS)

STANDALONE = (
    Standalone(
        name="prior",
        kind="rule",
        control="C0",
        says="the option that was the answer most often in the training questions",
    ),
    Standalone(name="longest", kind="rule", control="C0", says="the longest option"),
    Standalone(
        name="text_only",
        kind="text",
        control="C2",
        says="the language model before fine-tuning, no video",
    ),
    *(
        Standalone(
            name=f"{name}_head",
            kind="head",
            control="C6",
            says="no language model: the recognizer's classes, restricted to the options",
            encoder=name,
        )
        for name in ("sefar", "supervised")
    ),
    *(
        Standalone(
            name=f"{name}_classifier",
            kind="probe",
            control="C6",
            says="no language model: a linear classifier on the mean token",
            encoder=name,
        )
        for name in ("sefar", "supervised", "clip", "eva", "random")
    ),
)
ROWS: tuple[Row, ...] = (*TRAININGS, *SHOWINGS, *STANDALONE)

FOLDER_OF = {
    "sefar": "sefar",
    "sefar_elements": "sefar",
    "sefar_fused": "sefar",
    "random": "sefar",
    "constant": "sefar",
    "supervised": "supervised",
    "clip": "clip",
    "clip_probe": "clip",
    "eva": "eva",
    "eva_probe": "eva",
}
"""Which of the given folders an encoder is made from."""


def encoder_of(row: Row) -> str | None:
    """The encoder whose tokens or head a row uses; none for text alone."""
    if isinstance(row, Showing):
        return training(row.of).encoder
    return row.encoder


def training(name: str) -> Training:
    """The trained row of this name."""
    return next(row for row in TRAININGS if row.name == name)
