"""The makers of the demo's two small models: their examples, and the folders that they write."""

import random

import pytest
import torch
from safetensors.torch import save_file

from demo import backbone, llm
from demo.llm import CurriculumStage, ExampleSampler, clean_slots, embed, mixed_slots, new_model
from sefar_core.presets import preset
from sefar_core.pretrained import load_vit
from sefar_core.train import fresh_student
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
    llm.make_tokenizer(folder, seed=0)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def sampler(tokenizer):
    return ExampleSampler(tokenizer)


def test_options_differ_and_the_demos_classes_are_never_among_them():
    rng = random.Random(0)
    drawn = [llm.draw_options(4, related, rng) for related in (0.7, 1.0) for _ in range(1000)]
    assert all(len(set(options)) == 4 for options in drawn)
    texts = {text for options in drawn for text in options}
    assert not texts & set(DEMO_TEXTS) and len(texts) > 1000
    assert set(DEMO_TEXTS) == llm.HELD_OUT_TEXTS
    for related in drawn[1000:]:
        words = [set(text.split()) for text in related]
        assert len(set.union(*words)) - len(set.intersection(*words)) <= 16


def test_words_and_letters_are_known_and_single_tokens(sampler):
    for text in DEMO_TEXTS:
        assert set(text.split()) <= set(llm.vocabulary())
        assert len(sampler.encode(text)) == len(text.split())
    assert len(sampler.encode(VIDEO_WORD)) == 1
    assert sampler.marker == (sampler.letters[0], sampler.encode("x.")[-1])


def test_a_description_holds_every_word_of_the_move_or_mostly_such():
    rng = random.Random(0)
    words, shares, noise = clean_slots([5, 6, 7], 7, rng)
    assert {word for slot in words for word in slot} == {5, 6, 7}
    assert (len(words), len(shares), noise) == (7, 7, 0)
    mine = 0
    for _ in range(50):
        words, shares, _ = mixed_slots([5, 6], [8, 9], 32, rng)
        assert all(sum(share) == pytest.approx(1) for share in shares)
        mine += sum(word in (5, 6) for slot in words for word in slot)
    assert mine / (50 * 32 * 4) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("template", [True, False])
def test_options_are_found_in_the_ids(sampler, template):
    rng = random.Random(1)
    for _ in range(30):
        one = sampler.draw(CurriculumStage(steps=1, template=template), rng)
        spans = one.option_spans(sampler.marker)
        assert [[one.prompt.ids[i] for i in span] for span in spans] == one.options
        targets = [label for label in one.prompt.labels if label != IGNORE]
        assert targets[0] == sampler.letters[one.answer]


def test_a_new_model_gets_slots_in_place_of_the_video_and_answers_by_chance(tokenizer, sampler):
    torch.manual_seed(0)
    model, rng = new_model(tokenizer).eval(), random.Random(2)
    for layer in model.model.layers:  # heads attend to equal tokens
        assert torch.equal(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight)
    (word,) = sampler.encode(VIDEO_WORD)
    one = sampler.draw(CurriculumStage(steps=1, mixed=0.0), rng)
    embeds, _, _ = embed(model, [one], word, torch.Generator().manual_seed(0))
    table = model.get_input_embeddings().weight
    place = one.prompt.ids.index(len(tokenizer))
    slot, pure = embeds[0, place] - table[word], table[one.words[0][0]]
    assert torch.cosine_similarity(slot, pure, dim=0).item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(embeds[0, place - 1], table[one.prompt.ids[place - 1]])
    bare = CurriculumStage(steps=1, template=False)
    examples = [sampler.draw(bare, rng) for _ in range(64)]
    assert llm.letter_accuracy(model, sampler.letters, examples, word) < 0.5


def test_a_folder_is_made_that_loads_as_any_language_model(tmp_path, monkeypatch):
    monkeypatch.setattr(llm, "EVAL_EXAMPLES", 8)
    llm.main(llm.Settings(out=tmp_path / "llm", lr=1e-3, scale=1e-9, seed=0))
    card = (tmp_path / "llm/README.md").read_text()
    assert "--seed 0" in card and card.count(" description: ") == 4
    model = build_vlm(tmp_path / "llm", token_dim=8, token_shape=(8, 2, 2), encoder={})
    assert model.dtype == torch.float32
    assert sum(path.stat().st_size for path in (tmp_path / "llm").iterdir()) < 4_000_000
    assert [path.name for path in tmp_path.iterdir()] == ["llm"]
    assert unlike_opened(tmp_path / "llm") == []


def test_the_vit_is_that_of_the_preset_and_a_heatmap_is_highest_at_its_joint(tmp_path):
    vit = backbone.build_network(pose_size=8, num_joints=2)["vit"]
    save_file(
        {name: t.contiguous() for name, t in vit.state_dict().items()}, tmp_path / "v.safetensors"
    )
    load_vit(fresh_student(preset("demo"), 12).backbone, tmp_path / "v.safetensors")
    maps = backbone.heatmaps(torch.tensor([[[0.1, 0.9], [0.6, 0.3]]]))
    assert maps.shape == (1, 16, 2 * 16)
    patch, cell = divmod(maps[0, :, :16].argmax().item(), 16)
    # x 0.1 is patch column 0 of 4, cell column 1 of 4; y 0.9 is patch row 3, cell row 2.
    assert (divmod(patch, 4), divmod(cell, 4)) == ((3, 0), (2, 1))
