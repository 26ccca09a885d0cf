"""Letter scores: a model's answer to every question, over all rotations of its options.

Each of n options visits every letter once: in rotation r, letter k carries option (k + r) mod n.
An option's score is the mean of its log-probabilities among the letters, so that a preference for
a letter or a position cancels. Strict rotation requires the right letter in every rotation. The
rotations differ after the video and the stem, which are computed once for all of them
(`shared_prefix`), and the output layer runs at the ends of the prompts alone. The result is a
`Prediction` a question, from which sefar_mllm/evaluation makes all numbers. docs/paper_map.md, row
"letter scoring".
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError, write_text
from qa_data.questions import LETTERS, Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import Turn, encode_question, marker_ids, question_text
from sefar_mllm.shared_prefix import hidden_states, join

LETTER_RUN = re.compile(
    r"(?:[\s,;/&|().:-]|(?:and|or)\b|[A-Z](?=\s*(?:[).,:;/&|]|(?:and|or)\b|$)))*"
)
"""Letters with only marks between them, as in "A, B" and "A.B.C.D". A letter before words is not
one of them: "B. A salto" names B."""
RECITED_LETTER = re.compile(r"\s\(?([A-Z])[).:]\s+\S")
STRICT_LETTER = re.compile(r"\s*\(?([A-Z])(?:[).:]|[^\S\n]*(?:\n|$))")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The model's scores of one question."""

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


def predict_answers(  # noqa: PLR0913 - the questions, the model, and the form of the options
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

    `shown` is the clip to show for each question's clip; by default its own. `letters` mark the
    options, in the questions and as answers: others than A, B, C, ... (`1234`, `QXJM`) show whether
    the model depends on the letters. ValueError if a prompt is longer than the model reads, or a
    letter is not a single token; FloatingPointError if a logit of a letter is not a finite number.
    """
    predictions: dict[str, Prediction] = {}
    for batch, clips in shown_batches(questions, shown, batch_size, bar="questions"):
        tokens = [cache[clip] for clip in clips]
        logits = letter_logits(model, tokenizer, batch, tokens, letters=letters)
        for question, clip, scores in zip(batch, clips, logits, strict=True):
            predictions[question.question_id] = as_prediction(question, clip, scores)
    return [predictions[question.question_id] for question in questions]


def shown_batches(
    questions: Sequence[Question], shown: Mapping[str, str] | None, size: int, *, bar: str
) -> Iterator[tuple[list[Question], list[str]]]:
    """`batches_by_options` with the clip that is shown for each question, and a progress bar."""
    with tqdm(total=len(questions), desc=bar, unit="q") as progress:
        for batch in batches_by_options(questions, size):
            yield batch, [(shown or {}).get(q.video, q.video) for q in batch]
            progress.update(len(batch))


@torch.inference_mode()
def letter_logits(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    letters: str = LETTERS,
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters after `ASSISTANT:`; in rotation r letter k is option (k + r) mod n.

    The questions have equally many options; `tokens` are those of the clip shown with each.
    ValueError if a prompt is longer than the model reads, or a letter is not a single token.
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


def rotate(options: tuple[str, ...], rotation: int) -> tuple[str, ...]:
    """The options as rotation r shows them: letter k carries option (k + r) mod n."""
    turn = rotation % len(options)
    return options[turn:] + options[:turn]


def option_log_probs(
    letter_logits: Float[Tensor, "question rotation letter"],
) -> Float[Tensor, "question rotation option"]:
    """Log-probability of each option in each rotation, among the letters alone. ValueError if the
    number of rotations is not the number of letters.
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


def question_fields(question: Question) -> dict[str, Any]:
    """The fields of a prediction that its question gives."""
    return {
        "question_id": question.question_id,
        "video": question.video,
        "source": question.source or question.video,
        "event": question.event,
        "label": question.label,
    }


def as_prediction(
    question: Question, shown: str, logits: Float[Tensor, "rotation letter"]
) -> Prediction:
    """One question's scores as a record; options of equal text are equally right in `strict`.
    FloatingPointError if a logit is not a finite number.
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
        **question_fields(question),
        shown=shown,
        answer=question.answer,
        probs=tuple(option_probs(logits[None])[0].tolist()),
        first_letter=int(logits[0].argmax()),
        strict=all(question.options[place] == text for place in chosen),
    )


def batches_by_options(questions: Sequence[Question], size: int) -> Iterator[list[Question]]:
    """Batches of questions with equally many options and about equal length: little padding.

    `size` is that of a batch of questions with up to 4 options. With more options batches are
    smaller: the tokens of a question's rotations grow with the square of their number.
    """
    ordered = sorted(questions, key=lambda q: (len(q.options), sum(map(len, q.options))))
    start = 0
    while start < len(ordered):
        count = len(ordered[start].options)
        room = min(size, max(1, size * 16 // count**2))
        batch = [q for q in ordered[start : start + room] if len(q.options) == count]
        yield batch
        start += len(batch)


def parse_letter(text: str, count: int) -> int | None:
    """The option that a generated answer names, or None.

    Strict: the answer begins with a capital letter that is followed by `)`, `.` or `:`, or that is
    all there is in its line. Anything else counts as no answer, and no answer counts as wrong. A
    letter and a blank are not enough: "A salto" begins with an article, and reading it as the first
    option would add answers to it that the model did not give. "Based on" is not the letter B, a
    letter later in the text does not count, and nothing is guessed. Where the letters of other
    options follow ("A: B", "A.B.C.D", a list of the options), no single option is named. `count` is
    how many options the question has, 2 to 26.
    """
    match = STRICT_LETTER.match(text)
    if match is None:
        return None
    option = ord(match.group(1)) - ord("A")
    if option >= count or _names_another(text[match.end(1) :], option, count):
        return None
    return option


def _names_another(rest: str, option: int, count: int) -> bool:
    """Whether the text after the letter of an option names other options, too.

    qa_data/export/lmms_eval_functions.py, which is used without this package, has the same rule.
    """
    run = LETTER_RUN.match(rest)
    assert run is not None  # it matches the empty text
    letters = [*re.findall("[A-Z]", run[0]), *RECITED_LETTER.findall(rest)]
    return any(ord(one) - ord("A") not in (option, *range(count, 26)) for one in letters)


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """One JSON object a line, all or nothing."""
    write_text(path, "".join(json.dumps(asdict(one)) + "\n" for one in predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """The predictions in a file. SefarError if it is missing, or a line is not a prediction."""
    if not path.is_file():
        raise SefarError(f"no predictions at {path}; make them with scripts/evaluate_mllm.py")
    names = {field.name for field in fields(Prediction)}
    predictions = []
    for number, entry in enumerate(read_json_lines(path), 1):
        if set(entry) != names or not isinstance(entry["probs"], list):
            raise SefarError(f"{path}, line {number}: expected the fields {sorted(names)}")
        predictions.append(Prediction(**{**entry, "probs": tuple(entry["probs"])}))
    return predictions


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. OSError if it is missing; SefarError if a line is not
    one.
    """
    lines = path.read_bytes().split(b"\n")  # texts may hold other characters that end a line
    entries = []
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            entries.append(dict(json.loads(line)))
        except (ValueError, TypeError) as cause:
            raise SefarError(
                f"{path}, line {number} is not a JSON object: {cause}; score the model again, into "
                f"another folder"
            ) from cause
    return entries


def positions(attention_mask: Tensor) -> Tensor:
    """Positions that start at 0 with the first token that is not padding."""
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
