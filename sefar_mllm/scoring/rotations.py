"""Which option does the model choose: letter likelihoods, averaged over the options' rotations.

Each of n options visits every letter once: in rotation r, letter k carries option (k + r) mod n.
An option's score is the mean of its log-probabilities among the letters, so that a liking for a
letter or a place cancels. Strict rotation asks for the right letter in every rotation. Pure
functions of numbers. docs/paper_map.md, row "letter scoring".
"""

import re

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

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
