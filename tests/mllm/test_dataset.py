import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from demo.llm import make_tokenizer
from qa_data.files import SefarError
from qa_data.manifest import Clip, write_manifest
from qa_data.questions import QuestionError, write_public_json, write_questions
from sefar_mllm.build import load_tokenizer
from sefar_mllm.dataset import (
    Collator,
    QuestionDataset,
    example_turn,
    load_questions,
    name_sets,
    pad_batch,
    refuse_too_long,
)
from sefar_mllm.feature_cache import CacheError, TokenCache, meant_by
from sefar_mllm.prompt import IGNORE, EncodedPrompt
from tests.oracles import toy_llm


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, size=640, seed=0)
    return load_tokenizer(folder)


@pytest.fixture
def asked():
    return toy_llm.questions(6)


@pytest.fixture
def dataset(tmp_path, tokenizer, asked):
    cache = toy_llm.cache(tmp_path, asked)
    return QuestionDataset(asked, cache, tokenizer, video_id=len(tokenizer), seed=3)


def shown_options(dataset, index):
    """The option order that is in an item's prompt."""
    text = dataset.tokenizer.decode([i for i in dataset[index]["prompt"].ids if i < 640])
    places = {option: text.index(option) for option in toy_llm.TEXTS}
    return sorted(places, key=places.__getitem__)


def test_the_target_letter_always_marks_the_right_option(dataset, asked):
    for epoch in range(5):
        dataset.begin_epoch(epoch)
        for index, question in enumerate(asked):
            labels = [i for i in dataset[index]["prompt"].labels if i != IGNORE]
            letter = "ABCD".index(dataset.tokenizer.decode(labels[:1]).strip())
            assert shown_options(dataset, index)[letter] == question.options[question.answer]


def test_options_are_in_another_order_every_epoch_and_in_the_same_when_asked_again(dataset):
    orders = []
    for epoch in [*range(8), 0]:
        dataset.begin_epoch(epoch)
        orders.append(tuple(shown_options(dataset, 0)))
    assert orders[0] == orders[-1]
    assert len(set(orders)) > 4


def test_items_depend_on_seed_epoch_and_question_and_on_no_global_state(dataset, asked):
    torch.manual_seed(0)
    random.seed(0)
    before = dataset[2]["prompt"].ids
    torch.manual_seed(99)
    random.seed(99)
    assert dataset[2]["prompt"].ids == before
    alone = QuestionDataset(asked[2:3], dataset.cache, dataset.tokenizer, video_id=640, seed=3)
    assert alone[0]["prompt"].ids == before


def test_noise_on_tokens_is_drawn_anew_every_epoch_and_is_reproducible(tmp_path, tokenizer, asked):
    cache = toy_llm.cache(tmp_path, asked)
    noisy = QuestionDataset(asked, cache, tokenizer, video_id=len(tokenizer), token_noise=0.5)
    first = noisy[1]["video_tokens"]
    assert torch.equal(first, noisy[1]["video_tokens"])
    moved = first - cache[asked[1].video].float()
    assert moved.std().item() == pytest.approx(
        0.5 * cache[asked[1].video].float().std(dim=-1).mean().item(), rel=0.25
    )
    noisy.begin_epoch(1)
    assert not torch.equal(first, noisy[1]["video_tokens"])


@pytest.mark.parametrize("style", ["letter", "text", "mixed"])
def test_answer_styles_teach_what_they_say(asked, style):
    answers = [example_turn(asked[1], style, random.Random(i)).assistant for i in range(60)]
    letters = [answer for answer in answers if len(answer) == 1]
    texts = [answer for answer in answers if answer == "salto backward tucked"]
    both = [answer for answer in answers if answer[1:] == ". salto backward tucked"]
    assert len(letters) + len(texts) + len(both) == 60
    assert bool(letters) == (style != "text")
    assert bool(texts) == bool(both) == (style != "letter")


def test_batches_are_padded_and_padding_is_neither_seen_nor_learned():
    prompts = [EncodedPrompt([5, 6, 7], [IGNORE, 6, 7]), EncodedPrompt([8], [8])]
    right = pad_batch(prompts, 0)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
    left = pad_batch(prompts, 0, side="left")
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_carries_each_clips_tokens_and_name(dataset, asked):
    batch = Collator(0)([dataset[4], dataset[1]])
    assert batch["clip_ids"] == ["clip4", "clip1"]
    torch.testing.assert_close(batch["video_tokens"][1], dataset.cache["clip1"].float())


def test_prompts_that_are_too_long_are_refused_all_at_once(dataset):
    longest = max(len(dataset[i]["prompt"].ids) for i in range(6))
    refuse_too_long(dataset, longest)
    with pytest.raises(SefarError, match="6 of 6 prompts exceed 50 tokens"):
        refuse_too_long(dataset, 50)


def test_clips_without_tokens_are_refused_all_at_once(tmp_path, asked):
    toy_llm.cache(tmp_path, asked[:4])
    with pytest.raises(CacheError, match="lacks 2 of 6 clips"):
        TokenCache(tmp_path, [question.video for question in asked])


@pytest.mark.parametrize(
    "called", ["videos/clip1", "clip1.mp4", "videos\\clip1.mp4", "/data/videos/clip1.webm"]
)
def test_a_clip_called_by_its_path_is_told_its_name(tmp_path, asked, called):
    toy_llm.cache(tmp_path, asked[:4])
    with pytest.raises(CacheError, match=r"calls it 'clip1': write that in the questions$"):
        TokenCache(tmp_path, ["clip0", called])


def test_a_clip_of_another_name_is_no_clip_called_by_its_path():
    known = ["salto/1", "stalder/1", "2"]
    assert meant_by("1", ["salto/1"]) == "salto/1"
    assert meant_by("videos/salto/1.mp4", known) == "salto/1"
    for strange in ("1", "salto/3", "salto_1", "12"):
        assert meant_by(strange, known) is None


def test_no_questions_are_refused(dataset):
    with pytest.raises(SefarError, match="no questions"):
        QuestionDataset([], dataset.cache, dataset.tokenizer, video_id=640)


def test_question_sets_that_are_called_alike_take_their_folders_names():
    paths = [Path("qa-public/test.jsonl"), Path("qa-hard/test.jsonl"), Path("qa-hard/val.jsonl")]
    assert name_sets(paths) == ["qa-public-test", "qa-hard-test", "val"]
    with pytest.raises(SefarError, match="two question files have the same name"):
        name_sets([Path("a/test.jsonl"), Path("a/test.json")])


def test_both_kinds_of_question_files_are_read(tmp_path, asked):
    write_questions(asked, tmp_path / "own.jsonl")
    public = [replace(question, frame_length=10) for question in asked]
    write_public_json(public, tmp_path / "public.json")
    assert load_questions(tmp_path / "own.jsonl") == asked
    assert [q.options for q in load_questions(tmp_path / "public.json")] == [
        q.options for q in asked
    ]


LINE = {
    "video": "a", "question": "Does she land on the mat?", "options": ["yes", "no"], "answer": "B"
}  # fmt: skip


@pytest.mark.parametrize("name", ["own.jsonl", "own.json"])
def test_short_lines_get_their_classes_from_the_manifest(tmp_path, name):
    clip = Clip(
        id="a", path="a.mp4", label=3, text="giant circle", event="UB", source="s", split="test"
    )
    write_manifest([clip], tmp_path / "manifest.csv")
    path = tmp_path / name
    path.write_text(json.dumps(LINE), encoding="utf-8")
    (bare,) = load_questions(path)
    assert (bare.label, bare.event, bare.source) == (None, None, "")
    (question,) = load_questions(path, tmp_path / "manifest.csv")
    assert question == replace(bare, label=3, event="UB", source="s")
    path.write_text(json.dumps({**LINE, "answer_type": "what"}), encoding="utf-8")
    with pytest.raises(QuestionError, match="'no', but the manifest calls the clip 'giant circle'"):
        load_questions(path, tmp_path / "manifest.csv")


@pytest.mark.parametrize("write", [write_questions, write_public_json])
def test_a_video_outside_the_manifest_is_refused(tmp_path, asked, write):
    write_manifest([Clip(id="a", path="a.mp4", label=0, split="test")], tmp_path / "manifest.csv")
    write(asked, tmp_path / "asked.jsonl")
    with pytest.raises(QuestionError, match="clip0 is not in the manifest; .* 6 questions name"):
        load_questions(tmp_path / "asked.jsonl", tmp_path / "manifest.csv")
