import random

import pytest
import torch

from demo import llm
from demo.llm import (
    CurriculumStage,
    ExampleSampler,
    clean_slots,
    curriculum,
    embed,
    letter_accuracy,
    lr_factor,
    make_llm,
    make_tokenizer,
    mixed_slots,
    new_model,
)
from sefar_mllm.build import build_vlm, load_tokenizer
from sefar_mllm.prompt import IGNORE, VIDEO_WORD
from tests.oracles.permissions import unlike_opened

# The classes of the demo, written out by hand.
DEMO_TEXTS = [
    f"{what} {way} {shape}"
    for what in ("salto", "double salto")
    for way in ("forward", "backward")
    for shape in ("tucked", "piked", "stretched")
] + [
    f"{what} {way}{end}"
    for what in ("giant circle", "clear hip circle", "stalder")
    for way in ("forward", "backward")
    for end in ("", " to handstand")
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, size=768, seed=0)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def sampler(tokenizer):
    return ExampleSampler(tokenizer)


def test_the_demos_classes_never_are_options():
    rng = random.Random(0)
    drawn = {text for _ in range(2000) for text in llm.draw_options(4, 0.7, rng)}
    assert not drawn & set(DEMO_TEXTS)
    assert set(DEMO_TEXTS) == llm.HELD_OUT_TEXTS
    assert len(drawn) > 1000


def test_options_differ_and_near_relatives_share_most_words():
    rng = random.Random(0)
    for _ in range(200):
        related = llm.draw_options(4, 1.0, rng)
        assert len(set(related)) == 4
        shared = set.intersection(*(set(text.split()) for text in related))
        union = set.union(*(set(text.split()) for text in related))
        assert len(union) - len(shared) <= 16


def test_every_word_of_the_demo_is_known():
    words = {word for text in DEMO_TEXTS for word in text.split()}
    assert words <= set(llm.vocabulary())


def test_words_and_letters_are_single_tokens(tokenizer, sampler):
    for text in DEMO_TEXTS:
        assert len(sampler.encode(text)) == len(text.split())
    assert len(sampler.encode(VIDEO_WORD)) == 1
    assert sampler.marker == (sampler.letters[0], sampler.encode("x.")[-1])


def test_a_clean_description_holds_every_word_of_the_move():
    rng = random.Random(0)
    words, shares, noise = clean_slots([5, 6, 7], 7, rng)
    assert {word for slot in words for word in slot} == {5, 6, 7}
    assert len(words) == len(shares) == 7
    assert noise == 0


def test_a_mixed_description_holds_mostly_words_of_the_move():
    rng = random.Random(0)
    mine = total = 0
    for _ in range(50):
        words, shares, _ = mixed_slots([5, 6], [8, 9], 32, rng)
        assert all(sum(share) == pytest.approx(1) for share in shares)
        mine += sum(word in (5, 6) for slot in words for word in slot)
        total += 32 * 4
    assert mine / total == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("template", [True, False])
def test_options_are_found_in_the_ids(sampler, template):
    rng = random.Random(1)
    for _ in range(30):
        one = sampler.draw(CurriculumStage(steps=1, template=template), rng)
        spans = one.option_spans(sampler.marker)
        assert [[one.prompt.ids[i] for i in span] for span in spans] == one.options
        targets = [label for label in one.prompt.labels if label != IGNORE]
        assert targets[0] == sampler.letters[one.answer]


def test_slots_are_in_the_place_of_the_video(tokenizer, sampler):
    torch.manual_seed(0)
    model = new_model(tokenizer)
    (word,) = sampler.encode(VIDEO_WORD)
    rng = random.Random(2)
    one = sampler.draw(CurriculumStage(steps=1, mixed=0.0), rng)
    embeds, _, _ = embed(model, [one], word, torch.Generator().manual_seed(0))
    table = model.get_input_embeddings().weight
    place = one.prompt.ids.index(len(tokenizer))
    slot = embeds[0, place] - table[word]
    pure = table[one.words[0][0]]
    assert torch.cosine_similarity(slot, pure, dim=0).item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(embeds[0, place - 1], table[one.prompt.ids[place - 1]])


def test_heads_start_by_attending_to_equal_tokens(tokenizer):
    torch.manual_seed(0)
    for layer in new_model(tokenizer).model.layers:
        assert torch.equal(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight)


def test_the_learning_rate_rises_stays_and_falls():
    assert lr_factor(0, 1000) == pytest.approx(0.02)
    assert lr_factor(300, 1000) == 1.0
    assert lr_factor(750, 1000) == pytest.approx(0.5)
    assert lr_factor(999, 1000) == pytest.approx(0.05)


def test_an_untrained_model_is_at_chance(tokenizer, sampler):
    torch.manual_seed(0)
    model = new_model(tokenizer).eval()
    rng = random.Random(0)
    examples = [sampler.draw(CurriculumStage(steps=1, template=False), rng) for _ in range(128)]
    (word,) = sampler.encode(VIDEO_WORD)
    assert letter_accuracy(model, sampler.letters, examples, word) < 0.45


def test_a_folder_is_made_that_loads_as_any_language_model(tmp_path, monkeypatch):
    monkeypatch.setattr(llm, "EVAL_EXAMPLES", 8)
    made = make_llm(tmp_path / "llm", vocab_size=768, lr=1e-3, scale=1e-9, seed=0)
    assert len(made) == 4
    card = (tmp_path / "llm/README.md").read_text()
    assert "--seed 0" in card and "held-out texts, mixed description" in card
    model = build_vlm(tmp_path / "llm", token_dim=8, token_shape=(8, 2, 2), encoder={})
    assert model.dtype == torch.float32
    assert sum(path.stat().st_size for path in (tmp_path / "llm").iterdir()) < 4_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["llm"]
    assert unlike_opened(tmp_path / "llm") == []


def test_the_curriculum_ends_with_the_whole_prompt():
    assert [stage.template for stage in curriculum(1.0)] == [False, False, False, True]
