import io
import sys

import pytest

from sefar_core.data.video import VideoReadError
from sefar_mllm.chat.assistant import ChatError
from sefar_mllm.chat.cli import HELP, Chat, talk, typed_path
from tests.oracles import toy_chat


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    return toy_chat.assistant(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def chat(assistant, monkeypatch):
    """Its videos are called one.mp4 and two.mp4; others cannot be read."""

    def watch(path, *, untrusted):
        assert untrusted
        if str(path) not in ("one.mp4", "two.mp4"):
            raise VideoReadError(f"{path} does not exist")
        return assistant.begin(toy_chat.video_tokens(str(path) == "two.mp4"))

    monkeypatch.setattr(assistant, "watch", watch)
    chat = Chat(assistant)
    chat.watch("one.mp4")
    return chat


def said(chat, line):
    return "".join(chat.answer(line))


def test_a_line_that_is_no_command_is_answered(chat, assistant):
    expected = assistant.begin(toy_chat.video_tokens(0)).answer("What is this?")
    assert said(chat, " What is this?\n").strip() == expected
    assert chat.conversation.turns[0].user == "What is this?"


def test_another_video_begins_anew(chat):
    said(chat, "What is this?")
    assert said(chat, "/video two.mp4") == "video: two.mp4"
    assert chat.conversation.turns == []
    assert chat.conversation.tokens.equal(toy_chat.video_tokens(1))


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("my clip.mp4", "my clip.mp4"),
        ("my clip.mp4", '"my clip.mp4"'),
        ("my clip.mp4", "'my clip.mp4'"),
        ("my clip.mp4", r"my\ clip.mp4"),
        ("it's (1).mp4", r"it\'s\ \(1\).mp4"),
        ('"quoted" clip.mp4', '"quoted" clip.mp4'),
        ("'a'.mp4", "'a'.mp4"),
        (r"back\ slash.mp4", r"back\ slash.mp4"),
        ("it's.mp4", "it's.mp4"),
    ],
)
def test_a_path_is_read_as_it_stands_or_as_a_shell_would(tmp_path, monkeypatch, name, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert typed_path(typed) == name


@pytest.mark.parametrize(
    ("typed", "path"), [('"gone.mp4"', "gone.mp4"), ("it's", "it's"), ("a b", "a b"), ('""', '""')]
)
def test_a_path_of_nothing_is_named_without_its_quotes(tmp_path, monkeypatch, typed, path):
    monkeypatch.chdir(tmp_path)
    assert typed_path(typed) == path


def test_a_quoted_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert typed_path("~/a b.mp4") == typed_path('"~/a b.mp4"') == f"{tmp_path}/a b.mp4"


def test_a_dragged_video_is_looked_at(chat, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(chat, "watch", lambda path: seen.append(path))
    (tmp_path / "my clip.mp4").touch()
    assert said(chat, f"/video '{tmp_path}/my clip.mp4'") == f"video: {tmp_path}/my clip.mp4"
    assert seen == [f"{tmp_path}/my clip.mp4"]


def test_a_video_that_cannot_be_read_changes_nothing(chat):
    said(chat, "What is this?")
    before, turns = chat.conversation, chat.conversation.turns
    with pytest.raises(VideoReadError, match="three.mp4 does not exist"):
        said(chat, "/video three.mp4")
    assert chat.conversation is before and before.turns == turns


def test_options_come_with_their_probabilities_right_aligned(chat):
    lines = said(chat, "/options salto forward| stalder").splitlines()
    probs = chat.conversation.option_probs(["salto forward", "stalder"])
    assert lines == [f"{probs[0]:6.1%}  salto forward", f"{probs[1]:6.1%}  stalder"]


def test_the_base_model_answers_until_the_adapter_is_back(chat):
    tuned = said(chat, "What is this?")
    said(chat, "/reset")
    assert said(chat, "/adapter off") == "the base language model answers"
    assert said(chat, "What is this?") != tuned
    said(chat, "/video one.mp4")
    assert not chat.conversation.adapted
    said(chat, "/adapter on")
    assert said(chat, "What is this?") == tuned


def test_help_names_every_command(chat):
    lines = said(chat, "/help").splitlines()
    assert [line.split()[0] for line in lines] == [command.split()[0] for command in HELP]


@pytest.mark.parametrize(
    "line",
    ["/options one", "/options", "/options a||b", "/unknown", "  ", "/video", "/adapter loud"],
)
def test_what_cannot_be_answered_is_refused(chat, line):
    with pytest.raises(ChatError):
        said(chat, line)


@pytest.mark.parametrize("line", ["What?", "/options a|b", "/reset", "/adapter off"])
def test_before_the_first_video_one_is_asked_for(assistant, line):
    with pytest.raises(ChatError, match="open one: /video PATH"):
        said(Chat(assistant), line)


def test_questions_given_are_answered_and_the_keyboard_is_left_alone(chat, capsys):
    assert talk(chat, ["/options one|two", "/quit", "never asked"]) == 0
    heard = capsys.readouterr().out
    assert heard.count("%") == 2 and "never" not in heard


def test_options_that_have_no_letter_end_no_chat(chat, capsys):
    assert talk(chat, ["/options a|b|c|d|e", "/options a|b|c|d"]) == 1
    heard = capsys.readouterr().out
    assert "error: got 5 options, but the letter E" in heard and heard.count("%") == 4


def test_lines_from_a_pipe_are_answered_and_refusals_are_counted(chat, capsys, monkeypatch):
    typed = "What is this?\n\n/nonsense\x1b[2J\n/video gone.mp4\n/reset\n/quit\nno\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert talk(chat) == 2
    heard = capsys.readouterr().out
    assert "error: there is no command /nonsense[2J;" in heard
    assert "error: gone.mp4 does not exist" in heard
    assert heard.endswith("conversation cleared\n") and "\x1b" not in heard


def test_a_first_interrupt_stops_the_answer_and_a_second_one_the_chat(chat, capsys, monkeypatch):
    def interrupted(line):
        yield "The be"
        raise KeyboardInterrupt

    def lines(prompt):
        if not asked:
            raise KeyboardInterrupt
        return asked.pop()

    asked = ["second", "first"]
    monkeypatch.setattr(chat, "answer", interrupted)
    monkeypatch.setattr("builtins.input", lines)
    assert talk(chat) == 0
    assert capsys.readouterr().out.count("The be\nstopped") == 2
