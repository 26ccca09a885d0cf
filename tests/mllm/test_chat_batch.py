import json
from collections import Counter
from pathlib import Path

import pytest

from qa_data.files import SefarError
from sefar_core.data.video import VideoReadError
from sefar_mllm.adapters import composite
from sefar_mllm.chat import batch as chat_batch
from sefar_mllm.chat.batch import (
    BatchQuestion,
    answer_all,
    made_with,
    open_answers,
    path_of,
    read_batch,
)
from sefar_mllm.config import ChatLimits
from tests.oracles import toy_chat

OPTIONS = ["salto forward tucked", "stalder", "giant circle"]
LINES = [
    {"id": "a", "video": "0.mp4", "question": "What is this?"},
    {"id": "b", "video": "1.mp4", "question": "Which?", "options": OPTIONS},
    {"id": "c", "video": "gone.mp4", "question": "Which gymnastics move is this?"},
    {"id": "d", "video": "1.mp4", "question": "And on which apparatus is it performed, please?"},
    {"id": "e", "video": "0.mp4", "question": "Which?", "options": OPTIONS[:2]},
    {"id": "f", "video": "2.mp4", "question": "Why?"},
    {"id": "g", "video": "0.mp4", "question": "Which?", "options": OPTIONS[::-1]},
]
SETTINGS = {"model": "m1", "max_new_tokens": 6}
LIMITS = ChatLimits(max_new_tokens=6)


@pytest.fixture
def encoded(assistant, monkeypatch):
    """Counts how often each video is encoded; those named by a number can be read."""
    times = Counter()

    def encode_videos(clips):
        for clip in reversed(list(clips)):
            times[clip.path.name] += 1
            number = clip.path.stem
            if number.isdigit():
                yield clip, toy_chat.video_tokens(int(number))
            else:
                yield clip, VideoReadError(f"{clip.path} does not exist")

    monkeypatch.setattr(assistant, "encode_videos", encode_videos)
    return times


@pytest.fixture
def answered(monkeypatch):
    """The ids of the questions of each batch that is answered."""
    batches: list[list[str]] = []

    def record(assistant, batch, seen):
        batches.append([one.id for one in batch])
        return answer_batch(assistant, batch, seen)

    answer_batch = chat_batch.answer_batch
    monkeypatch.setattr(chat_batch, "answer_batch", record)
    return batches


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def batch_questions(lines=LINES) -> list[BatchQuestion]:
    return [BatchQuestion(**{**one, "options": tuple(one["options"])} if "options" in one else one)
            for one in lines]  # fmt: skip


def run(assistant, out, lines=LINES, *, settings=SETTINGS, **more):
    return answer_all(assistant, batch_questions(lines), out, settings=settings, **more)


@pytest.mark.parametrize(("batch_size", "compiled"), [(1, False), (3, True)])
def test_batched_answers_are_those_of_single_conversations(
    assistant, encoded, tmp_path, monkeypatch, batch_size, compiled
):
    caches = []
    hook = composite(assistant.model).register_forward_pre_hook(
        lambda _, args, inputs: caches.append(inputs["past_key_values"]), with_kwargs=True
    )
    monkeypatch.setattr(assistant, "compiled", compiled)
    broken = run(assistant, tmp_path / "out.jsonl", batch_size=batch_size)
    hook.remove()
    monkeypatch.setattr(assistant, "compiled", False)
    assert {type(one).__name__ == "StaticCache" for one in caches} == {compiled}
    assert broken == {"c": "gone.mp4 does not exist"}
    assert encoded == {"0.mp4": 1, "1.mp4": 1, "2.mp4": 1, "gone.mp4": 1}
    found = read_lines(tmp_path / "out.jsonl")
    assert [line["id"] for line in found] == list("abcdefg")
    for question, line in zip(LINES, found, strict=True):
        assert {name: line[name] for name in question} == question
        if question["id"] == "c":
            assert line["error"] == "gone.mp4 does not exist" and "answer" not in line
            continue
        alone = assistant.begin(toy_chat.video_tokens(int(question["video"][0])))
        if "options" in question:
            probs = alone.option_probs(question["options"], question["question"])
            assert line["probs"] == pytest.approx(probs, abs=1e-5)
            assert line["answer"] == question["options"][probs.index(max(probs))]
        else:
            assert line["answer"] == alone.answer(question["question"]) and "probs" not in line
    assert len({line["answer"] for line in found if line["id"] in "adf"}) == 3


def test_a_second_run_repeats_only_what_failed(assistant, encoded, tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    run(assistant, out)
    before = read_lines(out)
    encoded.clear()
    assert run(assistant, out) == {"c": "gone.mp4 does not exist"}
    assert encoded == {"gone.mp4": 1}
    assert read_lines(out) == before
    there = toy_chat.video_tokens(5)
    monkeypatch.setattr(assistant, "encode_videos", lambda clips: [(c, there) for c in clips])
    assert run(assistant, out) == {}
    fixed = read_lines(out)
    assert fixed[2]["answer"] == assistant.begin(there).answer(LINES[2]["question"])
    assert fixed[:2] + fixed[3:] == before[:2] + before[3:]


@pytest.mark.parametrize("cut", [1, 20, 0])
def test_a_stopped_run_resumes_after_its_last_whole_line(
    assistant, encoded, answered, tmp_path, cut
):
    out = tmp_path / "out.jsonl"
    run(assistant, out)
    before, lines = read_lines(out), out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:3]) + lines[3][: len(lines[3]) - cut])
    answered.clear(), encoded.clear()
    run(assistant, out)
    kept = 3 if cut else 4
    assert out.read_text().splitlines(keepends=True)[:kept] == lines[:kept]
    assert answered == [list("cdefg" if cut else "cefg")]  # c failed before
    assert encoded["1.mp4"] == (1 if cut else 0)
    for line, other in zip(read_lines(out), before, strict=True):
        # The other questions of a batch change the last digits of probabilities.
        assert line.pop("probs", None) == pytest.approx(other.pop("probs", None), abs=1e-5)
        assert line == other


def test_answers_are_kept_as_they_are_made(assistant, encoded, tmp_path, monkeypatch):
    def stop_at_d(assistant, batch, seen):
        if batch[0].id == "d":
            raise KeyboardInterrupt
        return answer_batch(assistant, batch, seen)

    answer_batch = chat_batch.answer_batch
    monkeypatch.setattr(chat_batch, "answer_batch", stop_at_d)
    with pytest.raises(KeyboardInterrupt):
        run(assistant, tmp_path / "out.jsonl", batch_size=1)
    assert [line["id"] for line in read_lines(tmp_path / "out.jsonl")] == ["a", "b", "c"]


def test_a_file_never_mixes_models_or_questions(assistant, encoded, tmp_path):
    out, lines = tmp_path / "out.jsonl", LINES[:2]
    run(assistant, out, lines)
    other = {**SETTINGS, "model": "m2"}
    run(assistant, tmp_path / "out.other", lines, settings=other)  # has settings of its own
    with pytest.raises(SefarError, match="made with model = m1, this run has m2"):
        run(assistant, out, lines, settings=other)
    changed = [LINES[0] | {"question": "What else?"}, LINES[1]]
    for other_lines in (changed, LINES[1:]):
        with pytest.raises(SefarError, match=r"line 1 answers a question of another batch"):
            run(assistant, out, other_lines)
    out.write_text(out.read_text().replace('"id": "b"', '"id": '))
    with pytest.raises(SefarError, match="line 2 is not an answer"):
        run(assistant, out, lines)
    (tmp_path / "out.jsonl.settings.json").write_text('{"model": "m1",')
    with pytest.raises(SefarError, match=r"settings\.json is damaged"):
        run(assistant, out, lines)


@pytest.mark.parametrize("what", ["folder", "questions", "notes", "damaged", "other"])
def test_other_files_are_refused_and_kept(tmp_path, what):
    out = tmp_path / "out.jsonl"
    if what == "folder":
        (out / "runs").mkdir(parents=True)
    else:
        out.write_text(json.dumps(LINES[0]) + "\n" if what == "questions" else "my notes\n")
    if what in ("damaged", "other"):
        text = "{" if what == "damaged" else '{"model": "m1", "limit": 2}'
        (tmp_path / "out.jsonl.settings.json").write_text(text)
    with pytest.raises(SefarError) as refused:
        open_answers(out, batch_questions(), {"model": "m1", "limit": 2})
    words = str(refused.value)
    assert str(out) in words and "give" in words and "--out" in words
    assert "delete" not in words and "remove" not in words
    assert out.exists()


def test_a_question_that_cannot_be_answered_gets_its_error(assistant, encoded, tmp_path):
    lines = [
        {"id": "long", "video": "0.mp4", "question": "word " * 390},
        {"id": "wide", "video": "0.mp4", "question": "Why?", "options": ["x " * 900, "y " * 900]},
        {"id": "many", "video": "1.mp4", "question": "Why?", "options": list("vwxyz")},
        LINES[1],
        LINES[0],
    ]
    broken = run(assistant, tmp_path / "out.jsonl", lines)
    assert set(broken) == {"long", "wide", "many"}
    assert "use fewer words" in broken["long"] and "give up to 4 options" in broken["many"]
    found = read_lines(tmp_path / "out.jsonl")
    assert found[3]["answer"] in OPTIONS and "answer" in found[4]


def test_long_options_are_scored_in_smaller_batches(assistant, encoded, tmp_path, monkeypatch):
    def scored(model, tokenizer, questions, tokens):
        sizes.append(len(questions))
        return letter_logits(model, tokenizer, questions, tokens)

    def answer(limit, name):
        sizes.clear()
        monkeypatch.setattr(chat_batch, "MAX_JOINED", limit)
        run(assistant, tmp_path / name, lines)
        return [line["probs"] for line in read_lines(tmp_path / name)]

    sizes: list[int] = []
    letter_logits = chat_batch.letter_logits
    monkeypatch.setattr(chat_batch, "letter_logits", scored)
    lines = [LINES[1] | {"id": str(number), "video": f"{number}.mp4"} for number in range(5)]
    question = assistant.begin(toy_chat.video_tokens(0)).choice(OPTIONS, "Which?")
    longest = chat_batch.joined_length(assistant.model, assistant.tokenizer, question)
    together = answer(100 * longest, "together")
    assert sizes == [5]
    apart = answer(int(1.5 * longest), "apart")
    assert sizes == [2, 2, 1]  # two rows have twice the mask of one; 1.5 squared is 2.25
    for probs, other in zip(together, apart, strict=True):
        assert probs == pytest.approx(other, abs=1e-5)


def test_paths_and_links_stay_within_the_root(tmp_path):
    def place(video, root):
        return path_of(BatchQuestion(id="a", video=video, question="Q"), root)

    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "inner").mkdir(parents=True)
    outside.mkdir()
    (root / "file.mp4").symlink_to("/etc/passwd")
    (root / "folder").symlink_to(outside)
    (root / "well.mp4").symlink_to(root / "inner" / "clip.mp4")
    for video in ("../secret.mp4", "/etc/passwd", "a/../../b.mp4"):
        with pytest.raises(SefarError, match="leads out of --video-root"):
            place(video, root)
    for video in ("file.mp4", "folder/clip.mp4", "folder/../outside/clip.mp4"):
        with pytest.raises(SefarError, match=f"question a: {video} .*let the root itself be the"):
            place(video, root)
    inside = root.resolve() / "inner" / "clip.mp4"
    assert place("well.mp4", root) == place("inner/../inner/clip.mp4", root) == inside
    (tmp_path / "link").symlink_to(outside)
    assert place("clip.mp4", tmp_path / "link") == outside.resolve() / "clip.mp4"
    assert place("/etc/passwd", None) == Path("/etc/passwd")


def test_lines_without_an_id_get_their_number(tmp_path):
    lines = [{name: value for name, value in line.items() if name != "id"} for line in LINES[:2]]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in [*lines, LINES[2]]))
    found = read_batch(path, LIMITS)
    assert [one.id for one in found] == ["1", "2", "c"]
    assert found[1] == BatchQuestion(
        id="2", video="1.mp4", question="Which?", options=tuple(OPTIONS)
    )
    assert found[0].options is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: "),
        ("", "line 2: "),
        ("[]", "expected an object of video, question"),
        ('{"video": "a.mp4"}', "expected an object"),
        ('{"video": "a.mp4", "question": "Q", "option": ["a"]}', "expected an object"),
        ('{"video": "a.mp4", "question": "Q", "video": "b.mp4"}', "the key 'video' is twice"),
        ('{"video": 3, "question": "Q"}', "video is 3; expected a text"),
        ('{"video": "a\\u0000", "question": "Q"}', "expected a text"),
        ('{"id": 7, "video": "a.mp4", "question": "Q"}', "id is 7; expected a text"),
        ('{"video": "a.mp4", "question": " "}', "the question is empty"),
        ('{"id": "\\ud800", "video": "a.mp4", "question": "Q"}', "the id holds halves of"),
        ('{"video": "\\ud800", "question": "Q"}', "the video holds halves of"),
        ('{"video": "a.mp4", "question": "\\ud800"}', "the question holds halves of"),
        ('{"video": "a.mp4", "question": "Q", "options": null}', "expected a list of texts"),
        ('{"video": "a.mp4", "question": "Q", "options": "AB"}', "expected a list of texts"),
        ('{"video": "a.mp4", "question": "Q", "options": ["a"]}', "2 to 26 different options"),
        ('{"id": "a", "video": "a.mp4", "question": "Q"}', "2 lines have the id 'a'"),
    ],
)
def test_lines_that_are_not_questions_are_named(tmp_path, line, words):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(LINES[0]) + "\n" + line + "\n" + json.dumps(LINES[1]) + "\n")
    with pytest.raises(SefarError, match="has 1 faults") as refusal:
        read_batch(path, LIMITS)
    assert words in str(refusal.value)


def test_files_without_questions_are_refused(tmp_path):
    path = tmp_path / "in.jsonl"
    with pytest.raises(SefarError, match="in.jsonl.*there is no such file; give"):
        read_batch(path, LIMITS)
    for content, words in ((b"\n \n", "is empty; write"), (b"\xff\xfe{}", "is UTF-16; give")):
        path.write_bytes(content)
        with pytest.raises(SefarError, match=f"in.jsonl.*{words}"):
            read_batch(path, LIMITS)


def test_the_settings_of_answers_are_all_that_they_depend_on(tmp_path):
    for name, text in (("one", "[1]"), ("two", "[2]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "fingerprint.json").write_text(text)
    plain = {"four_bit": False, "video_root": None}
    found = [
        made_with(tmp_path / "one", LIMITS, **plain),
        made_with(tmp_path / "two", LIMITS, **plain),
        made_with(tmp_path / "one", ChatLimits(max_new_tokens=7), **plain),
        made_with(tmp_path / "one", LIMITS, **plain | {"four_bit": True}),
        made_with(tmp_path / "one", LIMITS, **plain | {"video_root": tmp_path}),
        made_with(tmp_path / "one", LIMITS, **plain | {"video_root": tmp_path / "one"}),
    ]
    assert len({json.dumps(settings) for settings in found}) == len(found)
