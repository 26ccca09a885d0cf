"""LLaVA's and the messages' files: what a model is shown and trained on."""

import json
from dataclasses import replace

import pytest

from qa_data.export.writers import llava_json, messages_jsonl
from qa_data.questions import Question, QuestionError

QUESTION = Question(
    question_id="0000003",
    video="clip-1",
    stem="Which turn?",
    options=("half", 'full "twist"\u2028', "Grätsche"),
    answer=2,
)
OTHER = replace(QUESTION, question_id="0000004", video="clip-2", answer=0)
FILES = {"clip-1": "videos/one.mp4", "clip-2": "videos/two.mkv"}
PROMPT = (
    'Which turn?\nA. half\nB. full "twist"\u2028\nC. Grätsche\n'
    "Answer with the option's letter from the given choices directly."
)


def test_llava_shows_the_video_first_and_answers_with_the_letter():
    first, second = json.loads(llava_json([QUESTION, OTHER], FILES))
    assert first == {
        "id": "0000003",
        "video": "videos/one.mp4",
        "conversations": [
            {"from": "human", "value": f"<video>\n{PROMPT}"},
            {"from": "gpt", "value": "C"},
        ],
    }
    assert (second["video"], second["conversations"][1]["value"]) == ("videos/two.mkv", "A")


def test_messages_are_one_line_a_question():
    text = messages_jsonl([QUESTION, OTHER], FILES)
    first, second = map(json.loads, text.removesuffix("\n").split("\n"))
    user, assistant = first["messages"]
    assert first["id"] == "0000003"
    assert user == {
        "role": "user",
        "content": [
            {"type": "video", "video": "videos/one.mp4"},
            {"type": "text", "text": PROMPT},
        ],
    }
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": "C"}]}
    assert second["messages"][1]["content"][0]["text"] == "A"


@pytest.mark.parametrize("write", [llava_json, messages_jsonl])
@pytest.mark.parametrize("change", [{"stem": "<video>?"}, {"options": ("a", "<image>", "b")}])
def test_a_placeholder_in_a_text_is_refused(write, change):
    with pytest.raises(QuestionError, match="question 0000003: <(video|image)> is in its text"):
        write([replace(QUESTION, **change)], FILES)
