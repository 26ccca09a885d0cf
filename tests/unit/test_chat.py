from pathlib import Path

import pytest
import torch

from sefar_mllm import chat
from sefar_mllm.adapters import add_adapters
from sefar_mllm.chat import ChatError, Conversation, printable, refuse_unsuitable, reply, talk
from sefar_mllm.checkpoint import assemble, load_tokenizer
from sefar_mllm.prompt import encode_conversation
from tests.oracles import toy_llm


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = toy_llm.language_model(tmp_path_factory.mktemp("llm"))
    whole = assemble(folder, token_dim=toy_llm.DIM, token_shape=toy_llm.SHAPE, encoder={})
    model = add_adapters(whole, rank=2, alpha=4.0, dropout=0.0).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(*toy_llm.SHAPE, toy_llm.DIM, generator=generator)
    return model, load_tokenizer(folder), tokens


@pytest.fixture
def conversation(parts):
    return Conversation(*parts, max_new_tokens=6)


def test_the_stream_is_the_whole_answer_in_pieces(conversation, parts):
    model, tokenizer, tokens = parts
    turns = [chat.Turn("What is this?")]
    ids = encode_conversation(
        tokenizer, turns, num_video_tokens=32, video_id=model.get_base_model().config.video_token_id
    ).ids
    for _ in range(6):
        logits = model.get_base_model()(
            input_ids=torch.tensor([ids]), video_tokens=tokens[None], logits_to_keep=1
        ).logits
        ids.append(int(logits[0, -1].argmax()))
    expected = printable(tokenizer.decode(ids[-6:], skip_special_tokens=True))
    assert "".join(conversation.ask("What is this?")).split() == expected.split()


def test_follow_ups_read_what_was_said_before(conversation):
    list(conversation.ask("What is this?"))
    assert len(conversation.turns) == 1
    prompt = conversation._prompt([*conversation.turns, chat.Turn("And why?")])
    text = conversation.tokenizer.decode([i for i in prompt if i < len(conversation.tokenizer)])
    assert text.count("USER:") == 2
    assert conversation.turns[0].assistant in text
    conversation.reset()
    assert conversation.turns == []


def test_option_probabilities_follow_the_options_not_their_order(conversation):
    there = conversation.option_probs(["one", "two", "three"])
    back = conversation.option_probs(["two", "three", "one"])
    assert sum(there) == pytest.approx(1)
    assert [back[2], back[0], back[1]] == pytest.approx(there, abs=1e-5)


@pytest.mark.parametrize("line", ["/options one", "/options", "/options a||b", "/unknown", "  "])
def test_what_cannot_be_answered_is_refused(conversation, line):
    with pytest.raises(ChatError):
        list(reply(conversation, line))


def test_a_conversation_that_grows_too_long_is_refused(conversation):
    with pytest.raises(ChatError, match="start again with /reset"):
        list(conversation.ask("word " * 600))


def test_control_characters_never_reach_the_terminal():
    assert printable("a\x1b[2Jb\x07\x00\u202ec\n\x9bd") == "a[2Jbc\nd"


def test_questions_given_are_answered_and_the_keyboard_is_left_alone(conversation, capsys):
    talk(conversation, ["/options one|two", "/quit", "never asked"])
    said = capsys.readouterr().out
    assert said.count("%") == 2
    assert "never" not in said


def test_a_failing_generation_is_heard_of(conversation, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(conversation.model.get_base_model(), "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(conversation.ask("What is this?"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"duration_s": 500.0, "width": 10, "height": 10}, "lasts 500 s"),
        ({"duration_s": 5.0, "width": 9000, "height": 9000}, "9000 x 9000 pixels"),
    ],
)
def test_videos_that_are_too_long_or_too_large_are_refused(monkeypatch, found, said):
    monkeypatch.setattr(chat, "probe", lambda path: type("Info", (), found))
    with pytest.raises(ChatError, match=said):
        refuse_unsuitable(Path("film.mp4"))
