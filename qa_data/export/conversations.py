"""Questions as conversations: LLaVA's JSON, and the messages of OpenAI, TRL and chat templates.

Sources: LLaVA, docs/Finetune_Custom_Data.md (a list of id, media and `conversations`; Video-LLaVA
and LLaVA-NeXT call the media `video`); TRL, dataset_formats ("conversational language modeling");
transformers, chat templates with video parts.
"""

import json
from collections.abc import Mapping, Sequence

from qa_data.question import LETTERS, Question, QuestionError

LETTER_REQUEST = "Answer with the option's letter from the given choices directly."
PLACEHOLDERS = ("<video>", "<image>")


def prompt_text(question: Question) -> str:
    """Question, an option a line, and the request for a letter.

    Raises:
        QuestionError: a text holds a placeholder, which would count as a second video.
    """
    options = [f"{letter}. {text}" for letter, text in zip(LETTERS, question.options, strict=False)]
    text = "\n".join([question.stem, *options, LETTER_REQUEST])
    for placeholder in PLACEHOLDERS:
        if placeholder in text:
            raise QuestionError(
                f"question {question.question_id}: {placeholder} stands in its text, where models "
                f"would look for another video; write it otherwise"
            )
    return text


def llava_json(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """LLaVA's training file: one entry a question, video first, answered by its letter.

    Args:
        questions: to tell.
        files: path of each video.
    """
    entries = [
        {
            "id": question.question_id,
            "video": files[question.video],
            "conversations": [
                {"from": "human", "value": f"<video>\n{prompt_text(question)}"},
                {"from": "gpt", "value": question.letter},
            ],
        }
        for question in questions
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"


def messages_jsonl(questions: Sequence[Question], files: Mapping[str, str]) -> str:
    """One line a question: `messages`, the user's with a video part before the text part.

    Args:
        questions: to tell.
        files: path of each video.
    """
    lines = []
    for question in questions:
        asked = [
            {"type": "video", "video": files[question.video]},
            {"type": "text", "text": prompt_text(question)},
        ]
        answered = [{"type": "text", "text": question.letter}]
        messages = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answered},
        ]
        line = {"id": question.question_id, "messages": messages}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return "".join(lines)
