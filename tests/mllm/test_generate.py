import pytest
import torch

from qa_data.files import SefarError
from sefar_mllm import generate
from sefar_mllm.adapters import composite
from sefar_mllm.generate import generate_ids, lora_switched_off, static_cache_of, stream
from tests.oracles import toy_chat

QUESTIONS = (
    "What is this?",
    "Which gymnastics move is this, and on which apparatus is it performed?",
    "Why?",
)


@pytest.fixture(scope="module")
def asked(assistant):
    """Prompts of unequal length about videos of their own."""
    videos = [toy_chat.video_tokens(seed) for seed in range(len(QUESTIONS))]
    prompts = [
        assistant.begin(video).prompt(text) for video, text in zip(videos, QUESTIONS, strict=True)
    ]
    assert len({len(prompt) for prompt in prompts}) == len(prompts)
    return prompts, videos


@pytest.mark.parametrize("static_cache", [False, True])
def test_left_padded_batches_answer_like_single_questions(assistant, asked, static_cache):
    expected = [
        toy_chat.greedy(assistant.model, ids, tokens, 6) for ids, tokens in zip(*asked, strict=True)
    ]
    assert len({tuple(answer) for answer in expected}) == len(expected)
    found = generate_ids(assistant.model, *asked, max_new_tokens=6, static_cache=static_cache)
    assert found == expected


def test_a_static_cache_has_few_sizes(assistant):
    for length, room in ((511, 512), (512, 1024)):
        ids = torch.ones(1, length, dtype=torch.long)
        cache = static_cache_of(composite(assistant.model), ids, max_new_tokens=1)
        assert cache.layers[0].max_cache_len == room


def test_an_answer_ends_before_its_end_mark_and_the_others_continue(assistant, asked):
    whole = generate_ids(assistant.model, *asked, max_new_tokens=6)
    end = whole[1][2]
    found = generate_ids(assistant.model, *asked, max_new_tokens=6, end_id=end)
    assert found == [ids[: ids.index(end)] if end in ids else ids for ids in whole]
    assert len(found[1]) == 2 and len(found[0]) == 6


@pytest.mark.parametrize("static_cache", [False, True])
def test_the_stream_is_the_whole_answer_in_pieces(assistant, asked, static_cache):
    tokenizer = assistant.tokenizer
    how = {"max_new_tokens": 6, "static_cache": static_cache}
    for ids, tokens in zip(*asked, strict=True):
        pieces = list(stream(assistant.model, tokenizer, ids, tokens, **how))
        expected = toy_chat.greedy(assistant.model, ids, tokens, 6)
        assert "".join(pieces) == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_closed_stream_ends_the_generation(assistant, asked, monkeypatch):
    steps = []

    class WaitsForTheReader(generate._Unwanted):
        def __call__(self, *args, **more):
            steps.append(1)
            if len(steps) == 100:  # the first piece came long before
                self.event.wait(60)
            return super().__call__(*args, **more)

    monkeypatch.setattr(generate, "_Unwanted", WaitsForTheReader)
    (ids, *_), (tokens, *_) = asked
    pieces = stream(assistant.model, assistant.tokenizer, ids, tokens, max_new_tokens=400)
    next(pieces)
    pieces.close()
    generate.WORKER.submit(lambda: None).result()  # behind the generation: it has ended
    assert len(steps) <= 100


def test_an_error_of_the_generation_reaches_the_reader(assistant, asked, monkeypatch):
    def fail(**_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(composite(assistant.model), "generate", fail)
    (ids, *_), (tokens, *_) = asked
    with pytest.raises(RuntimeError, match="out of memory"):
        list(stream(assistant.model, assistant.tokenizer, ids, tokens, max_new_tokens=4))


def test_without_lora_the_base_model_answers_behind_the_trained_projector(assistant, asked, llm):
    base = toy_chat.base_model(llm).eval()
    learned = composite(assistant.model).model.multi_modal_projector.modules_to_save["default"]
    base.model.multi_modal_projector.load_state_dict(learned.state_dict())
    expected = [toy_chat.greedy(base, *one, 6) for one in zip(*asked, strict=True)]
    tuned = generate_ids(assistant.model, *asked, max_new_tokens=6)
    with lora_switched_off(assistant.model):
        assert generate_ids(assistant.model, *asked, max_new_tokens=6) == expected
    with pytest.raises(KeyError), lora_switched_off(assistant.model):
        raise KeyError("LoRA is back after a failure, too")
    assert generate_ids(assistant.model, *asked, max_new_tokens=6) == tuned != expected


def test_prompts_need_a_video_each(assistant, asked):
    prompts, videos = asked
    with pytest.raises(SefarError, match="3 prompts came with the tokens of 2 clips"):
        generate_ids(assistant.model, prompts, videos[:2], max_new_tokens=2)
