import io
import sys

import pytest

from sefar_core.data.video import VideoReadError
from sefar_mllm.chat.assistant import ChatError
from sefar_mllm.chat.cli import HELP, Chat, talk, typed_path
from tests.oracles import toy_chat


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


def reply(chat, line):
    return "".join(chat.answer(line))


def test_questions_are_answered_and_another_video_starts_anew(chat, assistant):
    expected = assistant.begin(toy_chat.video_tokens(0)).answer("What is this?")
    assert reply(chat, " What is this?\n").strip() == expected
    assert chat.conversation.turns[0].user == "What is this?"
    before, turns = chat.conversation, chat.conversation.turns
    with pytest.raises(VideoReadError, match="three.mp4 does not exist"):
        reply(chat, "/video three.mp4")
    assert chat.conversation is before and before.turns == turns
    assert reply(chat, "/video two.mp4") == "video: two.mp4"
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
def test_a_path_is_read_as_typed_or_as_a_shell_would(tmp_path, monkeypatch, name, typed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert typed_path(typed) == name


def test_paths_without_a_file_lose_their_quotes_and_may_begin_at_home(tmp_path, monkeypatch, chat):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for typed, path in {'"gone.mp4"': "gone.mp4", "it's": "it's", "a b": "a b", '""': '""'}.items():
        assert typed_path(typed) == path
    assert typed_path("~/a b.mp4") == typed_path('"~/a b.mp4"') == f"{tmp_path}/a b.mp4"
    (tmp_path / "my clip.mp4").touch()
    with pytest.raises(VideoReadError, match=f"^{tmp_path}/my clip.mp4 does not exist"):
        reply(chat, f"/video '{tmp_path}/my clip.mp4'")


def test_options_are_printed_with_their_probabilities(chat):
    lines = reply(chat, "/options salto forward| stalder").splitlines()
    probs = chat.conversation.option_probs(["salto forward", "stalder"])
    assert lines == [f"{probs[0]:6.1%}  salto forward", f"{probs[1]:6.1%}  stalder"]


def test_the_base_model_answers_until_the_adapter_is_on_again(chat):
    tuned = reply(chat, "What is this?")
    reply(chat, "/reset")
    assert reply(chat, "/adapter off") == "the base language model answers"
    assert reply(chat, "What is this?") != tuned
    reply(chat, "/video one.mp4")
    assert not chat.conversation.adapted
    reply(chat, "/adapter on")
    assert reply(chat, "What is this?") == tuned


def test_help_names_every_command(chat):
    lines = reply(chat, "/help").splitlines()
    assert [line.split()[0] for line in lines] == [command.split()[0] for command in HELP]


@pytest.mark.parametrize(
    "line",
    ["/options one", "/options", "/options a||b", "/unknown", "  ", "/video", "/adapter loud"],
)
def test_lines_that_cannot_be_answered_are_refused(chat, line):
    with pytest.raises(ChatError):
        reply(chat, line)


@pytest.mark.parametrize("line", ["What?", "/options a|b", "/reset", "/adapter off"])
def test_without_a_video_the_user_is_asked_for_one(assistant, line):
    with pytest.raises(ChatError, match="open one: /video PATH"):
        reply(Chat(assistant), line)


def test_given_questions_are_answered_without_standard_input(chat, capsys):
    lines = ["/options one|two", "/options a|b|c|d|e", "/options a|b|c|d", "/quit", "never"]
    assert talk(chat, lines) == 1
    printed = capsys.readouterr().out
    assert "error: got 5 options, but the letter E" in printed
    assert printed.count("%") == 6 and "never" not in printed


def test_lines_from_a_pipe_are_answered_and_refusals_are_counted(chat, capsys, monkeypatch):
    typed = "What is this?\n\n/nonsense\x1b[2J\n/video gone.mp4\n/reset\n/quit\nno\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    assert talk(chat) == 2
    printed = capsys.readouterr().out
    assert "error: there is no command /nonsense[2J;" in printed
    assert "error: gone.mp4 does not exist" in printed
    assert printed.endswith("conversation cleared\n") and "\x1b" not in printed


def test_a_first_interrupt_stops_the_answer_and_a_second_one_the_chat(chat, capsys, monkeypatch):
    def interrupted(line):
        yield "The be"
        raise KeyboardInterrupt

    def lines(prompt):
        if not typed:
            raise KeyboardInterrupt
        return typed.pop()

    typed = ["second", "first"]
    monkeypatch.setattr(chat, "answer", interrupted)
    monkeypatch.setattr("builtins.input", lines)
    assert talk(chat) == 0
    assert capsys.readouterr().out.count("The be\nstopped") == 2
