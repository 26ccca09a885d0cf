import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qa_data.questions import LETTERS
from sefar_mllm.adapters import composite
from sefar_mllm.chat import assistant as module
from sefar_mllm.chat.assistant import ChatError, Conversation, printable
from sefar_mllm.config import ChatLimits
from sefar_mllm.prompt import Turn
from sefar_mllm.scoring import rotated_prompts
from tests.oracles import toy_chat

MARKERS = ("USER:", "ASSISTANT:", "</s>", "<s>", "<video>", "<image>", "<unk>", "\n", " ", "A.")
TYPED = st.lists(st.one_of(st.sampled_from(MARKERS), st.text(max_size=8)), max_size=12).map("".join)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory):
    return toy_chat.assistant(tmp_path_factory.mktemp("llm"))


@pytest.fixture
def conversation(assistant):
    return assistant.begin(toy_chat.video_tokens(0))


def test_an_answer_is_the_most_probable_one(conversation):
    ids = conversation.prompt("What is this?")
    expected = toy_chat.greedy(conversation.model, ids, conversation.tokens, 6)
    text = conversation.tokenizer.decode(expected, skip_special_tokens=True)
    assert conversation.answer("What is this?") == printable(text).strip() != ""


def test_follow_ups_read_what_was_said_before(conversation):
    first = conversation.answer("What is this?")
    assert conversation.turns == [Turn("What is this?", first)]
    prompt = conversation.prompt("And why?")
    text = conversation.tokenizer.decode([i for i in prompt if i < len(conversation.tokenizer)])
    assert text.count("USER:") == 2 and first in text
    alone = Conversation(conversation.model, conversation.tokenizer, conversation.tokens)
    assert prompt != alone.prompt("And why?")
    conversation.reset()
    assert conversation.prompt("And why?") == alone.prompt("And why?")


def test_an_answer_that_is_broken_off_is_not_remembered(conversation):
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


def test_without_the_adapter_answers_and_probabilities_are_others(conversation):
    tuned, probs = conversation.answer("What is this?"), conversation.option_probs(["a", "b"])
    conversation.reset()
    conversation.adapted = False
    assert conversation.answer("What is this?") != tuned
    assert conversation.option_probs(["a", "b"]) != probs
    conversation.reset()
    conversation.adapted = True
    assert conversation.answer("What is this?") == tuned


def test_a_merged_model_has_no_adapter_to_switch_off(conversation):
    merged = Conversation(
        composite(conversation.model), conversation.tokenizer, conversation.tokens
    )
    with pytest.raises(ChatError, match="merged: it has no adapter"):
        merged.adapted = False
    assert merged.adapted
    merged.adapted = True


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["one"], "2 to 26 different options"),
        (["one", "one"], "2 to 26 different options"),
        ([str(n) for n in range(27)], "got 27"),
        (["a", " "], "the option is empty"),
        (["a", "b" * 3000], "the option has 3000 characters"),
        (["a", "\ud800"], "halves of characters"),
        (["a " * 900, "b " * 900], "use fewer words"),
    ],
)
def test_options_that_cannot_be_scored_are_refused(conversation, options, said):
    with pytest.raises(ChatError, match=said):
        conversation.option_probs(options)


def test_options_beyond_the_letters_of_the_tokenizer_are_refused(conversation):
    with pytest.raises(ChatError, match="got 6 options, but the letter E .* give up to 4 options"):
        conversation.option_probs(list("uvwxyz"))
    assert len(conversation.option_probs(list("uvwx"))) == 4


def test_a_tokenizer_without_letters_is_asked_without_options(conversation, monkeypatch):
    def none(tokenizer, letters):
        raise ValueError("no single tokens")

    monkeypatch.setattr("sefar_mllm.chat.assistant.marker_ids", none)
    with pytest.raises(ChatError, match="ask without options"):
        conversation.option_probs(["u", "v"])


def test_options_whose_orders_would_fill_the_memory_are_refused(conversation, monkeypatch):
    options = ["salto forward tucked", "stalder", "giant circle"]
    question = conversation.choice(options)
    config = composite(conversation.model).config
    prompts = rotated_prompts(conversation.tokenizer, question, config, LETTERS)
    # By hand: what all begin with once, and then what each has of its own.
    shared = next(n for n in range(999) if len({prompt[n] for prompt in prompts}) > 1)
    length = shared + sum(len(prompt) - shared for prompt in prompts)
    monkeypatch.setattr(module, "MAX_JOINED", length)
    assert conversation.choice(options) == question
    monkeypatch.setattr(module, "MAX_JOINED", length - 1)
    with pytest.raises(ChatError, match=f"3 options have {length} tokens .* at most {length - 1} "):
        conversation.option_probs(options)


def test_the_limit_of_the_options_keeps_their_mask_within_two_gigabytes():
    assert 4 * module.MAX_JOINED**2 < 2e9


@pytest.mark.parametrize("adapted", [True, False])
def test_a_compiled_chat_says_the_same_with_and_without_the_adapter(assistant, adapted):
    spoken = []
    for compiled in (False, True):
        conversation = Conversation(
            assistant.model,
            assistant.tokenizer,
            toy_chat.video_tokens(0),
            limits=assistant.limits,
            compiled=compiled,
        )
        conversation.adapted = adapted
        spoken.append([conversation.answer("What is this?"), conversation.answer("Why?")])
    assert spoken[0] == spoken[1] and all(spoken[0])


def test_a_compiled_chat_keeps_its_memory_of_fixed_size(assistant, monkeypatch):
    monkeypatch.setattr(assistant, "compiled", True)
    caches = []
    forward = composite(assistant.model).register_forward_pre_hook(
        lambda _, args, inputs: caches.append(inputs["past_key_values"]), with_kwargs=True
    )
    assistant.begin(toy_chat.video_tokens(0)).answer("What is this?")
    forward.remove()
    assert {type(one).__name__ for one in caches} == {"StaticCache"}
    assert {one.layers[0].max_cache_len for one in caches} == {512}


def test_what_cannot_be_asked_is_refused(conversation):
    conversation.limits = ChatLimits(max_new_tokens=6, max_turns=1, max_question_chars=1900)
    refusals = {
        "  ": "the question is empty",
        "x" * 1901: "the question has 1901 characters, at most 1900 are allowed",
        "word " * 360: "start again with /reset",
        "a\udc80": "halves of characters",
    }
    for text, said in refusals.items():
        with pytest.raises(ChatError, match=said):
            conversation.answer(text)
    conversation.turns = [Turn("What is this?", "A salto.")]
    with pytest.raises(ChatError, match="has 1 questions, the limit"):
        conversation.answer("And this?")
    assert len(conversation.turns) == 1


@pytest.mark.parametrize("name", ["max_new_tokens", "max_question_chars", "max_turns"])
def test_limits_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        ChatLimits(**{name: 0})


@settings(max_examples=25, deadline=None)
@given(said=st.lists(st.tuples(TYPED, TYPED), max_size=2), typed=TYPED)
def test_nothing_typed_or_said_moves_the_video_or_ends_a_turn(assistant, said, typed):
    conversation = assistant.begin(toy_chat.video_tokens(0))
    conversation.turns = [Turn(f"q{user}", f"a{answer}") for user, answer in said]
    config = composite(assistant.model).config
    tokenizer = assistant.tokenizer
    ids = conversation.prompt(f"q{typed}")
    video = [place for place, one in enumerate(ids) if one == config.video_token_id]
    assert video == list(range(video[0], video[0] + config.num_video_tokens))
    assert video[0] < 60  # in the first turn, directly behind the system's words
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids.count(tokenizer.eos_token_id) == len(said)
    answer_begins = tokenizer("ASSISTANT:", add_special_tokens=False)["input_ids"]
    assert ids[-len(answer_begins) :] == answer_begins


@settings(max_examples=10, deadline=None)
@given(options=st.lists(TYPED.filter(str.strip), min_size=2, max_size=4, unique=True))
def test_whatever_the_options_hold_their_probabilities_are_some(assistant, options):
    conversation = assistant.begin(toy_chat.video_tokens(0))
    probs = conversation.option_probs(options)
    assert sum(probs) == pytest.approx(1) and min(probs) > 0
    assert conversation.turns == []


def test_what_the_model_writes_is_cleaned_before_anyone_sees_it(conversation, monkeypatch):
    def stream(*_, **__):
        yield from ("a \x1b[2J", "salto\x07\n", "\u202eforward")

    monkeypatch.setattr(module, "stream", stream)
    assert list(conversation.ask("What is this?")) == ["a [2J", "salto\n", "forward"]
    assert conversation.turns[0].assistant == "a [2Jsalto\nforward"


def test_control_characters_never_reach_the_terminal():
    assert printable("a\x1b[2Jb\x07\x00\u202ec\n\x9bd\ud800") == "a[2Jbc\nd"
