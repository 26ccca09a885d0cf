"""What lmms-eval calls for a Gym-QA task: the video, the prompt, and how an answer counts.

This file becomes utils.py of the task folder and needs nothing but Python.
"""

import re

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LETTER_RUN = r"(?:[\s,;/&|().:-]|(?:and|or)\b|[A-Z](?=\s*(?:[).,:;/&|]|(?:and|or)\b|$)))*"
RECITED_LETTER = r"\s\(?([A-Z])[).:]\s+\S"
REQUEST = "Answer with the option's letter from the given choices directly."


def doc_to_visual(doc: dict) -> list[str]:
    """The path of the video, in a list."""
    return [doc["video_path"]]


def doc_to_text(doc: dict, lmms_eval_specific_kwargs: dict | None = None) -> str:
    """Question, an option a line, and the request for a letter; a model may set words around."""
    words = lmms_eval_specific_kwargs or {}
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, doc["options"], strict=False)]
    prompt = "\n".join([doc["question"], *options, words.get("post_prompt", REQUEST)])
    return words.get("pre_prompt", "") + prompt


def process_results(doc: dict, results: list[str]) -> dict:
    """What one answer is worth. An answer that cannot be read is wrong, and counted."""
    letter = read_letter(results[0], doc["options"])
    right = float(letter == doc["answer"])
    return {
        "accuracy": right,
        "mean_class_accuracy": (doc["class"], right),
        "unreadable": float(letter is None),
    }


def mean_of_classes(items: list[tuple[str, float]]) -> float:
    """Mean over the classes of each class's accuracy.

    Args:
        items: class and credit of every question.
    """
    credits: dict[str, list[float]] = {}
    for name, credit in items:
        credits.setdefault(name, []).append(credit)
    return sum(sum(found) / len(found) for found in credits.values()) / len(credits)


def read_letter(answer: str, options: list[str]) -> str | None:
    """The letter that an answer names, or None.

    Read are "B", "(B)", "B. text", "the answer is B" and the text of one option. A letter within
    a sentence is not: "A double salto" does not choose A. "A: B", "Answer: A, B" and a list of
    the options name no single one.

    Args:
        answer: what the model said.
        options: texts that it could choose from.
    """
    said = answer.strip().strip("*\"'` ")
    letters = LETTERS[: len(options)]
    alone = re.fullmatch(rf"\(?([{letters}])\)?[.:,]?", said)
    first = re.match(rf"\(?([{letters}])[).:](?=\s|$)", said)
    if found := alone or first:
        return None if _names_another(said[found.end(1) :], found[1], letters) else found[1]
    word = r"(?:[Aa]nswer|[Oo]ption)(?: is|:)?:? \(?"
    mentioned = set(re.findall(rf"{word}([{letters}])\b", said))
    marked = re.search(rf"{word}([{letters}])(?=[).,:;]|$)", said)
    if marked and len(mentioned) == 1:
        rest = said[marked.end(1) :]
        return None if _names_another(rest, marked[1], letters) else marked[1]
    same = [i for i, text in enumerate(options) if text.casefold() == said.casefold().rstrip(".")]
    return letters[same[0]] if len(same) == 1 else None


def _names_another(rest: str, letter: str, letters: str) -> bool:
    """Whether what follows the letter of an option names other options, too.

    A letter that words follow is none: "B. A double salto" names B.
    """
    run = re.match(LETTER_RUN, rest)
    named = [*re.findall("[A-Z]", run[0] if run else ""), *re.findall(RECITED_LETTER, rest)]
    return any(other in letters and other != letter for other in named)
