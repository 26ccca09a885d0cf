import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sefar_mllm
from qa_data.questions import LETTERS
from sefar_core.checkpoint import CheckpointError
from sefar_core.data.video import VideoReadError
from sefar_mllm.adapters import composite
from sefar_mllm.chat import assistant as module
from sefar_mllm.chat.assistant import ChatError, Conversation, load_encoder_of, printable
from sefar_mllm.chat.safe_video import VideoClip
from sefar_mllm.config import ChatLimits
from sefar_mllm.encoders.base import origin_of
from sefar_mllm.feature_cache import CacheError
from sefar_mllm.prompt import Turn
from sefar_mllm.scoring import rotated_prompts
from tests.oracles import toy_chat, videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    return videos.write_video(path, videos.numbered_frames(24), fps=24)


def test_tokens_are_those_of_the_frames_at_the_encoders_moments(assistant, clip):
    frames = torch.from_numpy(videos.numbered_frames(24)[1::3].copy())  # (n + 1/2) / 8 of 24
    expected = assistant.encoder.encode(frames[None])[0]
    conversation = assistant.watch(str(clip))
    torch.testing.assert_close(conversation.tokens, expected, atol=0.15, rtol=0)
    assert conversation.answer("Which move is this?") != ""
    half = assistant.watch(clip, start_s=0.5, end_s=1.0).tokens
    assert (half - expected).abs().max() > 0.15


def test_an_untrusted_video_is_decoded_apart_with_the_same_result(assistant, clip, monkeypatch):
    def apart(clips, moments, *, workers):
        return [(video_clip, module.read_frames(video_clip, moments)) for video_clip in clips]

    monkeypatch.setattr(module, "read_frames_apart", apart)
    conversation = assistant.watch(clip, untrusted=True)
    assert conversation.tokens.equal(assistant.watch(clip).tokens)
    assert conversation.limits == assistant.limits
    broken = [(VideoClip(path=clip), VideoReadError("cannot decode clip.mp4"))]
    monkeypatch.setattr(module, "read_frames_apart", lambda *_, **__: broken)
    with pytest.raises(VideoReadError, match="cannot decode clip.mp4"):
        assistant.watch(clip, untrusted=True)


@pytest.mark.parametrize(
    ("encoder", "key", "words"),
    [
        ({"digest": "4567"}, {}, "digest = 4567"),
        ({"moments": (0.5,) * 8}, {}, "moments"),
        ({}, {"frame_order": "shuffled"}, "frame_order = in_order"),
    ],
)
def test_another_encoder_than_in_training_is_refused(assistant, monkeypatch, encoder, key, words):
    build = {"random": lambda *_, **__: replace(toy_chat.encoder(), **encoder)}
    monkeypatch.setattr(module, "ENCODERS", build)
    for name, value in key.items():
        monkeypatch.setitem(composite(assistant.model).config.encoder["key"], name, value)
    with pytest.raises(CacheError, match=words):
        load_encoder_of(assistant.model, ".", encoder_dir="elsewhere")


def test_a_relative_encoder_folder_counts_from_here_or_from_the_model_folder(
    assistant, monkeypatch, tmp_path
):
    given = []

    def build(folder, *, seed, device):
        given.append(folder)
        return toy_chat.encoder()

    monkeypatch.setattr(module, "ENCODERS", {"random": build})
    monkeypatch.setitem(composite(assistant.model).config.encoder["origin"], "folder", "runs/sefar")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="^model was .* runs/sefar, .* by --encoder-dir$"):
        load_encoder_of(assistant.model, "model")
    for place in (tmp_path / "model" / "runs/sefar", tmp_path / "runs/sefar"):
        place.mkdir(parents=True)
        load_encoder_of(assistant.model, "model")
        assert given[-1].samefile(place)
    assert origin_of(Path("runs/sefar"), 3) == {"folder": f"{tmp_path}/runs/sefar", "seed": 3}


@pytest.mark.slow
def test_importing_the_package_loads_no_torch():
    code = "import sys, sefar_mllm; assert not {'torch', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_has_its_entrance():
    assert sefar_mllm.from_pretrained is module.from_pretrained
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sefar_mllm.nothing  # noqa: B018


MARKERS = ("USER:", "ASSISTANT:", "</s>", "<s>", "<video>", "<image>", "<unk>", "\n", " ", "A.")
TYPED = st.lists(st.one_of(st.sampled_from(MARKERS), st.text(max_size=8)), max_size=12).map("".join)
NO_LETTER = list("uvwxyz")  # E is not one token of the toy tokenizer


@pytest.fixture
def conversation(assistant):
    return assistant.begin(toy_chat.video_tokens(0))


def test_answers_are_the_most_probable_ones_and_follow_ups_read_them(conversation):
    ids = conversation.prompt("What is this?")
    expected = toy_chat.greedy(conversation.model, ids, conversation.tokens, 6)
    text = conversation.tokenizer.decode(expected, skip_special_tokens=True)
    first = conversation.answer("What is this?")
    assert first == printable(text).strip() != ""
    assert conversation.turns == [Turn("What is this?", first)]
    prompt = conversation.prompt("And why?")
    text = conversation.tokenizer.decode([i for i in prompt if i < len(conversation.tokenizer)])
    assert text.count("USER:") == 2 and first in text
    alone = Conversation(conversation.model, conversation.tokenizer, conversation.tokens)
    assert prompt != alone.prompt("And why?")
    conversation.reset()
    assert conversation.prompt("And why?") == alone.prompt("And why?")


def test_an_interrupted_answer_is_not_kept(conversation):
    pieces = conversation.ask("What is this?")
    next(pieces)
    pieces.close()
    assert conversation.turns == []
    assert conversation.answer("What is this?") == conversation.turns[0].assistant


def test_option_probabilities_follow_the_options_not_their_order(conversation):
    there = conversation.option_probs(["one", "two", "three"])
    back = conversation.option_probs(["two", "three", "one"])
    assert sum(there) == pytest.approx(1)
    assert len({round(p, 6) for p in there}) == 3
    assert [back[2], back[0], back[1]] == pytest.approx(there, abs=1e-5)


def test_the_adapter_can_be_switched_off_and_on(conversation):
    tuned, probs = conversation.answer("What is this?"), conversation.option_probs(["a", "b"])
    conversation.reset()
    conversation.adapted = False
    assert conversation.answer("What is this?") != tuned
    assert conversation.option_probs(["a", "b"]) != probs
    conversation.reset()
    conversation.adapted = True
    assert conversation.answer("What is this?") == tuned
    merged = Conversation(
        composite(conversation.model), conversation.tokenizer, conversation.tokens
    )
    with pytest.raises(ChatError, match="merged: it has no adapter"):
        merged.adapted = False
    assert merged.adapted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["one"], "2 to 26 different options"),
        (["one", "one"], "2 to 26 different options"),
        ([str(n) for n in range(27)], "got 27"),
        (["a", " "], "the option is empty"),
        (["a", "b" * 3000], "the option has 3000 characters"),
        (["a", "\ud800"], "halves of characters"),
        (["a " * 900, "b " * 900], "use fewer words"),
        (NO_LETTER, "got 6 options, but the letter E .* give up to 4 options"),
    ],
)
def test_options_that_cannot_be_scored_are_refused(conversation, options, words):
    with pytest.raises(ChatError, match=words):
        conversation.option_probs(options)


def test_a_tokenizer_without_single_letters_scores_no_options(conversation, monkeypatch):
    assert len(conversation.option_probs(NO_LETTER[:4])) == 4

    def none(tokenizer, letters):
        raise ValueError("no single tokens")

    monkeypatch.setattr(module, "marker_ids", none)
    with pytest.raises(ChatError, match="ask without options"):
        conversation.option_probs(NO_LETTER[:2])


def test_options_whose_rotations_would_fill_the_memory_are_refused(conversation, monkeypatch):
    assert 4 * module.MAX_JOINED**2 < 2e9  # bytes of the mask
    options = ["salto forward tucked", "stalder", "giant circle"]
    question = conversation.choice(options)
    config = composite(conversation.model).config
    prompts = rotated_prompts(conversation.tokenizer, question, config, LETTERS)
    # By hand: the common prefix once, then the rest of each.
    shared = next(n for n in range(999) if len({prompt[n] for prompt in prompts}) > 1)
    length = shared + sum(len(prompt) - shared for prompt in prompts)
    monkeypatch.setattr(module, "MAX_JOINED", length)
    assert conversation.choice(options) == question
    monkeypatch.setattr(module, "MAX_JOINED", length - 1)
    with pytest.raises(ChatError, match=f"3 options have {length} tokens .* at most {length - 1} "):
        conversation.option_probs(options)


@pytest.mark.parametrize("adapted", [True, False])
def test_a_compiled_chat_gives_the_same_answers_from_memory_of_fixed_size(assistant, adapted):
    caches, answers = [], []
    hook = composite(assistant.model).register_forward_pre_hook(
        lambda _, args, inputs: caches.append(inputs["past_key_values"]), with_kwargs=True
    )
    for compiled in (False, True):
        caches.clear()
        conversation = Conversation(
            assistant.model,
            assistant.tokenizer,
            toy_chat.video_tokens(0),
            limits=assistant.limits,
            compiled=compiled,
        )
        conversation.adapted = adapted
        answers.append([conversation.answer("What is this?"), conversation.answer("Why?")])
    hook.remove()
    assert answers[0] == answers[1] and all(answers[0])
    assert {type(one).__name__ for one in caches} == {"StaticCache"}
    assert {one.layers[0].max_cache_len for one in caches} == {512}


def test_questions_beyond_the_limits_are_refused(conversation):
    conversation.limits = ChatLimits(max_new_tokens=6, max_turns=1, max_question_chars=1900)
    refusals = {
        "  ": "the question is empty",
        "x" * 1901: "the question has 1901 characters, at most 1900 are allowed",
        "word " * 360: "start again with /reset",
        "a\udc80": "halves of characters",
    }
    for text, words in refusals.items():
        with pytest.raises(ChatError, match=words):
            conversation.answer(text)
    conversation.turns = [Turn("What is this?", "A salto.")]
    with pytest.raises(ChatError, match="has 1 questions, the limit"):
        conversation.answer("And this?")
    assert len(conversation.turns) == 1
    for name in ("max_new_tokens", "max_question_chars", "max_turns"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            ChatLimits(**{name: 0})


@given(said=st.lists(st.tuples(TYPED, TYPED), max_size=2), typed=TYPED)
def test_nothing_typed_or_answered_moves_the_video_or_ends_a_turn(assistant, said, typed):
    conversation = assistant.begin(toy_chat.video_tokens(0))
    conversation.turns = [Turn(f"q{user}", f"a{answer}") for user, answer in said]
    config = composite(assistant.model).config
    tokenizer = assistant.tokenizer
    ids = conversation.prompt(f"q{typed}")
    video = [place for place, one in enumerate(ids) if one == config.video_token_id]
    assert video == list(range(video[0], video[0] + config.num_video_tokens))
    assert video[0] < 60  # in the first turn, directly after the system prompt
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == len(said)
    ending = tokenizer("ASSISTANT:", add_special_tokens=False)["input_ids"]
    assert ids[-len(ending) :] == ending


def test_control_characters_never_reach_the_terminal(conversation, monkeypatch):
    assert printable("a\x1b[2Jb\x07\x00\u202ec\n\x9bd\ud800") == "a[2Jbc\nd"

    def stream(*_, **__):
        yield from ("a \x1b[2J", "salto\x07\n", "\u202eforward")

    monkeypatch.setattr(module, "stream", stream)
    assert list(conversation.ask("What is this?")) == ["a [2J", "salto\n", "forward"]
    assert conversation.turns[0].assistant == "a [2Jsalto\nforward"
