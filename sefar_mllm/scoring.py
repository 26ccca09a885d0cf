"""The fine-tuned model's answer to every question: letter scores in all rotations of the options.

What comes out is one record a question, from which `evaluate` makes all numbers.

Logits of the letters at the end of a question, for every rotation of its options.

The rotations differ behind the video and the stem, which are computed once for all of them
(`shared_prefix`), and the output layer is computed at the ends of the prompts alone.

Which option does the model choose: letter likelihoods, averaged over the options' rotations.

Each of n options visits every letter once: in rotation r, letter k carries option (k + r) mod n.
An option's score is the mean of its log-probabilities among the letters, so that a liking for a
letter or a place cancels. Strict rotation asks for the right letter in every rotation. Pure
functions of numbers. docs/paper_map.md, row "letter scoring".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.files import write_text
from qa_data.questions import LETTERS, Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_question, marker_ids, question_text
from sefar_mllm.shared_prefix import hidden_states, join

LETTER_RUN = re.compile(
    r"(?:[\s,;/&|().:-]|(?:and|or)\b|[A-Z](?=\s*(?:[).,:;/&|]|(?:and|or)\b|$)))*"
)
"""Letters with nothing but marks between them, as in "A, B" and "A.B.C.D". A letter that words
follow is none of them: "B. A salto" names B."""
RECITED_LETTER = re.compile(r"\s\(?([A-Z])[).:]\s+\S")
STRICT_LETTER = re.compile(r"\s*\(?([A-Z])(?:[).:]|[^\S\n]*(?:\n|$))")


def rotate(options: tuple[str, ...], rotation: int) -> tuple[str, ...]:
    """The options as rotation r shows them: letter k carries option (k + r) mod n."""
    turn = rotation % len(options)
    return options[turn:] + options[:turn]


def option_log_probs(
    letter_logits: Float[Tensor, "question rotation letter"],
) -> Float[Tensor, "question rotation option"]:
    """Log-probability of each option in each rotation, among the letters alone.

    Args:
        letter_logits: in rotation r the letter k stands for option (k + r) mod n.

    Raises:
        ValueError: the number of rotations is not the number of letters.
    """
    _, rotations, letters = letter_logits.shape
    if rotations != letters:
        raise ValueError(
            f"{letters} options need {letters} rotations to visit every letter once, "
            f"got {rotations}"
        )
    log_probs = letter_logits.log_softmax(dim=-1)
    return torch.stack([log_probs[:, r].roll(r, dims=-1) for r in range(rotations)], dim=1)


def option_probs(
    letter_logits: Float[Tensor, "question rotation letter"],
) -> Float[Tensor, "question option"]:
    """Probabilities of the options: softmax of their log-probabilities' mean over rotations."""
    return option_log_probs(letter_logits).mean(dim=1).softmax(dim=-1)


def strictly_right(
    letter_logits: Float[Tensor, "question rotation letter"], answers: Int[Tensor, "question"]
) -> Bool[Tensor, "question"]:
    """Whether the right option has the highest letter in every rotation. Chance is n ** -n."""
    chosen = option_log_probs(letter_logits).argmax(dim=-1)
    return (chosen == rearrange(answers, "question -> question 1")).all(dim=1)


def parse_letter(text: str, count: int) -> int | None:
    """The option that a generated answer names, or None.

    Strict: the answer begins with a capital letter that is followed by `)`, `.` or `:`, or that
    is all there is in its line. Anything else counts as no answer, and no answer counts as wrong.
    A letter and a blank are not enough: "A salto" begins with an article, and reading it as the
    first option would give that option answers that nobody gave. "Based on" is no letter B, a
    letter later in the text is not looked for, and nothing is guessed. Where the letters of other
    options follow ("A: B", "A.B.C.D", a list of the options), no single one is named.

    Args:
        text: what was generated, without the prompt.
        count: how many options the question has, 2 to 26.
    """
    found = STRICT_LETTER.match(text)
    if found is None:
        return None
    place = ord(found.group(1)) - ord("A")
    if place >= count or _names_another(text[found.end(1) :], place, count):
        return None
    return place


def _names_another(rest: str, place: int, count: int) -> bool:
    """Whether what follows the letter of an option names other options, too.

    qa_data/export/lmms_eval_functions.py, which stands alone, says the same of whole answers.
    """
    run = LETTER_RUN.match(rest)
    assert run is not None  # it matches the empty text
    letters = [*re.findall("[A-Z]", run[0]), *RECITED_LETTER.findall(rest)]
    return any(ord(one) - ord("A") not in (place, *range(count, 26)) for one in letters)


@torch.inference_mode()
def letter_logits(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    letters: str = LETTERS,
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters behind `ASSISTANT:`; in rotation r letter k is option (k + r) mod n.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: with as many options each.
        tokens: the clip that each question is shown.
        letters: markers of the options.

    Raises:
        ValueError: a prompt is longer than the model reads, or a letter is not a single token.
    """
    vlm = composite(model)
    shared, last = marker_ids(tokenizer, letters[: len(questions[0].options)])
    rows = []
    for question in questions:
        prompts = rotated_prompts(tokenizer, question, vlm.config, letters)
        rows.append(join([[*prompt, *shared] for prompt in prompts]))
    hidden = hidden_states(vlm, rows, tokens, tokenizer.pad_token_id)
    row = rearrange(torch.arange(len(rows)), "question -> question 1")
    ends = torch.tensor([[path[-1] for path in one.paths] for one in rows])
    return vlm.lm_head(hidden[row, ends])[..., last].float().cpu()


def rotated_prompts(
    tokenizer: PreTrainedTokenizerBase, question: Question, config: SefarVlmConfig, letters: str
) -> list[list[int]]:
    """Ids of the question in each rotation of its options, ending in `ASSISTANT:`."""
    orders = [rotate(question.options, rotation) for rotation in range(len(question.options))]
    turns = [Turn(question_text(question.stem, order, letters=letters)) for order in orders]
    return [encode_question(tokenizer, turn, config, question.question_id).ids for turn in turns]


class PredictionError(ValueError):
    """Predictions that cannot be used; the message names the file or question and the mend."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model makes of one question."""

    question_id: str
    video: str
    """The clip that the question is about."""
    shown: str
    """The clip whose tokens were shown: another one in the shuffled control."""
    source: str
    event: str | None
    label: int | None
    answer: int
    """Position of the right option."""
    probs: tuple[float, ...]
    """Of each option, rotation-averaged."""
    first_letter: int
    """The letter with the highest logit in the order of the question file."""
    strict: bool
    """Right in every rotation."""

    @property
    def choice(self) -> int:
        """The most probable option; the first of equals."""
        return max(range(len(self.probs)), key=self.probs.__getitem__)


def predict_answers(  # noqa: PLR0913 - what is asked, of which model, and in which form
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
    letters: str = LETTERS,
) -> list[Prediction]:
    """The model's letter scores for every question, in all rotations of its options.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer; the number of options may differ.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions scored at a time (see `batches`).
        letters: markers of the options, in the questions and as answers. Others than A, B, C, ...
            (`1234`, `QXJM`) are a control of what the model makes of letters.

    Raises:
        ValueError: a prompt is longer than the model reads, or a letter is not a single token.
        FloatingPointError: the model gives a letter a logit that is no number.
    """
    predictions: dict[str, Prediction] = {}
    with tqdm(total=len(questions), desc="questions", unit="q") as bar:
        for batch in batches_by_options(questions, batch_size):
            clips = [(shown or {}).get(q.video, q.video) for q in batch]
            tokens = [cache[clip] for clip in clips]
            logits = letter_logits(model, tokenizer, batch, tokens, letters=letters)
            for question, clip, scores in zip(batch, clips, logits, strict=True):
                predictions[question.question_id] = as_prediction(question, clip, scores)
            bar.update(len(batch))
    return [predictions[question.question_id] for question in questions]


def batches_by_options(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Questions with as many options, about as long, together: little padding, one shape.

    Args:
        questions: in any order.
        size: of a batch of questions with up to 4 options. With more, batches are smaller: a
            question's rotations grow with the square of their number.
    """
    ordered = sorted(questions, key=lambda q: (len(q.options), sum(map(len, q.options))))
    start = 0
    while start < len(ordered):
        count = len(ordered[start].options)
        room = min(size, max(1, size * 16 // count**2))
        batch = [q for q in ordered[start : start + room] if len(q.options) == count]
        yield batch
        start += len(batch)


def positions(attention_mask: Tensor) -> Tensor:
    """Positions that start at 0 with the first token that is not padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def as_prediction(
    question: Question, shown: str, logits: Float[Tensor, "rotation letter"]
) -> Prediction:
    """One question's scores as a record; options that read alike are equally right in `strict`.

    Raises:
        FloatingPointError: a logit is no number, or infinite.
    """
    if not torch.isfinite(logits).all():
        raise FloatingPointError(
            f"question {question.question_id}, shown {shown or 'no clip'}: letter logits are "
            f"{logits.flatten().tolist()}; check the tokens of this clip (extract them again), or "
            f"train again with lower learning rates"
        )
    chosen = option_log_probs(logits[None])[0].argmax(dim=-1).tolist()
    text = question.options[question.answer]
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=shown,
        source=question.source or question.video,
        event=question.event,
        label=question.label,
        answer=question.answer,
        probs=tuple(option_probs(logits[None])[0].tolist()),
        first_letter=int(logits[0].argmax()),
        strict=all(question.options[place] == text for place in chosen),
    )


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """One JSON object a line, all or nothing."""
    write_text(path, "".join(json.dumps(asdict(one)) + "\n" for one in predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file.

    Raises:
        PredictionError: the file is missing, or a line is no prediction.
    """
    if not path.is_file():
        raise PredictionError(f"no predictions at {path}; make them with scripts/evaluate_mllm.py")
    names = {field.name for field in fields(Prediction)}
    predictions = []
    for number, entry in enumerate(read_lines(path), 1):
        if set(entry) != names or not isinstance(entry["probs"], list):
            raise PredictionError(f"{path}, line {number}: expected the fields {sorted(names)}")
        predictions.append(Prediction(**{**entry, "probs": tuple(entry["probs"])}))
    return predictions


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines.

    Raises:
        OSError: the file is missing.
        PredictionError: a line is no JSON object.
    """
    lines = path.read_bytes().split(b"\n")  # what they say may hold other signs of a line's end
    entries = []
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError) as cause:
            raise PredictionError(
                f"{path}, line {number} is no JSON object: {cause}; score the model again, into "
                f"another folder"
            ) from cause
    return entries
