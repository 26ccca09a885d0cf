import json
import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import build_questions
from qa_data.manifest import Clip, write_manifest
from qa_data.questions import QuestionError, write_public_json, write_questions
from qa_data.taxonomy import read_categories
from sefar_core.data.splits import SplitConfig, draw_labeled
from sefar_mllm.build import load_tokenizer
from sefar_mllm.dataset import (
    PAD_ITEM,
    Collator,
    LengthBucketedSampler,
    QuestionDataset,
    bucketed,
    example_turn,
    load_questions,
    name_sets,
    pad_batch,
    padding_share,
    refuse_too_long,
    split_batch,
)
from sefar_mllm.feature_cache import CacheError, TokenCache, meant_by
from sefar_mllm.prompt import IGNORE, EncodedPrompt
from tests.finegym import finegym_folder
from tests.oracles import toy_llm

QUESTIONS = toy_llm.questions(6)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return toy_llm.cache(tmp_path_factory.mktemp("tokens"), QUESTIONS)


@pytest.fixture
def dataset(cache, tokenizer):
    return QuestionDataset(QUESTIONS, cache, tokenizer, video_id=len(tokenizer), seed=3)


def shown_options(dataset, index):
    """The options in the order of an item's prompt."""
    text = dataset.tokenizer.decode([i for i in dataset[index]["prompt"].ids if i < 640])
    places = {option: text.index(option) for option in toy_llm.TEXTS}
    return sorted(places, key=places.__getitem__)


def test_the_target_letter_marks_the_right_option_in_every_order(dataset):
    orders = []
    for epoch in [*range(8), 0]:
        dataset.begin_epoch(epoch)
        orders.append(tuple(shown_options(dataset, 0)))
        for index, question in enumerate(QUESTIONS):
            labels = [i for i in dataset[index]["prompt"].labels if i != IGNORE]
            letter = "ABCD".index(dataset.tokenizer.decode(labels[:1]).strip())
            assert shown_options(dataset, index)[letter] == question.options[question.answer]
    assert orders[0] == orders[-1] and len(set(orders)) > 4


def test_items_depend_on_seed_epoch_and_question_alone(dataset):
    torch.manual_seed(0)
    random.seed(0)
    before = dataset[2]["prompt"].ids
    torch.manual_seed(99)
    random.seed(99)
    assert dataset[2]["prompt"].ids == before
    alone = QuestionDataset(QUESTIONS[2:3], dataset.cache, dataset.tokenizer, video_id=640, seed=3)
    assert alone[0]["prompt"].ids == before


def test_noise_on_tokens_is_drawn_anew_every_epoch_and_is_reproducible(cache, tokenizer):
    noisy = QuestionDataset(QUESTIONS, cache, tokenizer, video_id=len(tokenizer), token_noise=0.5)
    first, clean = noisy[1]["video_tokens"], cache["clip1"].float()
    assert torch.equal(first, noisy[1]["video_tokens"])
    expected = 0.5 * clean.std(dim=-1).mean().item()
    assert (first - clean).std().item() == pytest.approx(expected, rel=0.25)
    noisy.begin_epoch(1)
    assert not torch.equal(first, noisy[1]["video_tokens"])


@pytest.mark.parametrize("style", ["letter", "text", "mixed"])
def test_the_answer_style_decides_the_form_of_the_answers(style):
    answers = [example_turn(QUESTIONS[1], style, random.Random(i)).assistant for i in range(60)]
    letters = [answer for answer in answers if len(answer) == 1]
    texts = [answer for answer in answers if answer == "salto backward tucked"]
    both = [answer for answer in answers if answer[1:] == ". salto backward tucked"]
    assert len(letters) + len(texts) + len(both) == 60
    assert bool(letters) == (style != "text")
    assert bool(texts) == bool(both) == (style != "letter")


def test_padding_is_masked_and_without_labels_on_either_side():
    prompts = [EncodedPrompt([5, 6, 7], [IGNORE, 6, 7]), EncodedPrompt([8], [8])]
    right = pad_batch(prompts, 0)
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right["labels"].tolist() == [[IGNORE, 6, 7], [8, IGNORE, IGNORE]]
    left = pad_batch(prompts, 0, side="left")
    assert left["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_a_batch_has_each_clips_tokens_and_name_and_a_pad_item_no_labels(dataset):
    batch = Collator(0)([dataset[4], dataset[1]])
    assert batch["clip_ids"] == ["clip4", "clip1"]
    torch.testing.assert_close(batch["video_tokens"][1], dataset.cache["clip1"].float())
    pad = dataset[PAD_ITEM]
    assert len(pad["prompt"].ids) == min(dataset.lengths)
    assert set(pad["prompt"].labels) == {IGNORE}
    assert pad["video_tokens"].shape == dataset[0]["video_tokens"].shape
    assert all(set(dataset[i]["prompt"].labels) != {IGNORE} for i in range(len(dataset)))


def test_unusable_questions_are_refused_all_at_once(dataset):
    refuse_too_long(dataset, max(dataset.lengths))
    with pytest.raises(SefarError, match="6 of 6 prompts exceed 50 tokens"):
        refuse_too_long(dataset, 50)
    with pytest.raises(SefarError, match="no questions"):
        QuestionDataset([], dataset.cache, dataset.tokenizer, video_id=640)


@pytest.mark.parametrize(
    "name", ["videos/clip1", "clip1.mp4", "videos\\clip1.mp4", "/data/videos/clip1.webm"]
)
def test_the_right_name_of_a_clip_is_suggested(cache, name):
    with pytest.raises(CacheError, match=r"calls it 'clip1': write that in the questions$"):
        TokenCache(cache.folder, ["clip0", name])
    known = ["salto/1", "stalder/1", "2"]
    assert meant_by("1", ["salto/1"]) == "salto/1"
    assert meant_by("videos/salto/1.mp4", known) == "salto/1"
    assert [meant_by(other, known) for other in ("1", "salto/3", "salto_1", "12")] == [None] * 4


def test_question_sets_of_equal_names_get_their_folders_names():
    paths = [Path("qa-public/test.jsonl"), Path("qa-hard/test.jsonl"), Path("qa-hard/val.jsonl")]
    assert name_sets(paths) == ["qa-public-test", "qa-hard-test", "val"]
    with pytest.raises(SefarError, match="two question files have the same name"):
        name_sets([Path("a/test.jsonl"), Path("a/test.json")])


@pytest.mark.parametrize("write", [write_questions, write_public_json])
def test_both_kinds_of_question_files_are_read_and_checked_against_the_manifest(tmp_path, write):
    questions = [replace(question, frame_length=10) for question in QUESTIONS]
    write(questions, tmp_path / "test.json")
    read = load_questions(tmp_path / "test.json")
    assert [q.options for q in read] == [q.options for q in questions]
    write_manifest([Clip(id="a", path="a.mp4", label=0, split="test")], tmp_path / "manifest.csv")
    with pytest.raises(QuestionError, match="clip0 is not in the manifest; .* 6 questions name"):
        load_questions(tmp_path / "test.json", tmp_path / "manifest.csv")


@pytest.mark.parametrize("name", ["own.jsonl", "own.json"])
def test_short_lines_get_their_classes_from_the_manifest(tmp_path, name):
    line = {"video": "a", "question": "Does she land?", "options": ["yes", "no"], "answer": "B"}
    clip = Clip(
        id="a", path="a.mp4", label=3, text="giant circle", event="UB", source="s", split="test"
    )
    write_manifest([clip], tmp_path / "manifest.csv")
    path = tmp_path / name
    path.write_text(json.dumps(line), encoding="utf-8")
    (bare,) = load_questions(path)
    assert (bare.label, bare.event, bare.source) == (None, None, "")
    (question,) = load_questions(path, tmp_path / "manifest.csv")
    assert question == replace(bare, label=3, event="UB", source="s")
    path.write_text(json.dumps({**line, "answer_type": "what"}), encoding="utf-8")
    with pytest.raises(QuestionError, match="'no', but the manifest calls the clip 'giant circle'"):
        load_questions(path, tmp_path / "manifest.csv")


@pytest.fixture(scope="module")
def dataset_of(tokenizer, tmp_path_factory):
    """Makes a dataset of so many questions, whose stems are of many lengths."""
    rng = random.Random(3)
    questions = [
        replace(one, stem="Which " + "very " * rng.randrange(60) + "move is this?")
        for one in toy_llm.questions(24)
    ]
    cache = toy_llm.cache(tmp_path_factory.mktemp("tokens"), questions)

    def make(count, *, seed=0, epoch=0):
        made = QuestionDataset(
            questions[:count], cache, tokenizer, video_id=len(tokenizer), seed=seed
        )
        made.begin_epoch(epoch)
        return made

    return make


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 20), st.integers())
def test_every_item_comes_once(lengths, size, seed):
    order = bucketed(lengths, batch_size=size, rng=random.Random(seed))
    assert sorted(order) == list(range(len(lengths)))


def test_batches_are_of_about_one_length_and_not_sorted_by_it():
    rng = random.Random(5)
    lengths = [rng.randrange(100, 200) for _ in range(960)]
    plain = [lengths[place] for place in random.Random(0).sample(range(960), 960)]
    order = [lengths[p] for p in bucketed(lengths, batch_size=16, rng=random.Random(0))]
    batches = [order[i : i + 16] for i in range(0, 960, 16)]
    cells = sum(len(batch) * max(batch) for batch in batches)
    assert padding_share(order, batch_size=16) == pytest.approx((cells - sum(lengths)) / cells)
    assert padding_share(order, batch_size=16) < 0.05 < 0.15 < padding_share(plain, batch_size=16)
    means = [sum(batch) / 16 for batch in batches]
    rises = sum(a < b for a, b in zip(means, means[1:], strict=False))
    assert 20 < rises < 40


def test_the_questions_of_a_step_do_not_depend_on_the_devices(dataset_of):
    dataset = dataset_of(21, seed=2, epoch=3)
    alone = list(LengthBucketedSampler(dataset, batch_size=8, multiple=1))
    assert sorted(alone) == list(range(21))
    for multiple in (2, 4, 8):
        sampler = LengthBucketedSampler(dataset, batch_size=8, multiple=multiple)
        order = list(sampler)
        assert len(order) == len(sampler) and len(order) % multiple == 0
        assert order[:21] == alone and set(order[21:]) <= {PAD_ITEM}


def test_the_order_follows_from_seed_and_epoch(dataset_of):
    def order(seed, epoch):
        dataset = dataset_of(24, seed=seed, epoch=epoch)
        return tuple(LengthBucketedSampler(dataset, batch_size=4, multiple=1))

    random.seed(1)
    first = order(0, 0)
    random.seed(2)
    assert order(0, 0) == first
    assert len({order(seed, epoch) for seed in range(2) for epoch in range(2)}) == 4


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8))
def test_devices_share_a_step_equally_or_not_at_all(batch, micro, processes):
    if batch % processes:
        with pytest.raises(SefarError, match=f"choose a multiple of {processes}"):
            split_batch(batch, micro, processes)
        return
    at_a_time, times = split_batch(batch, micro, processes)
    assert at_a_time * times * processes == batch
    assert 1 <= at_a_time <= micro


@pytest.mark.slow
@pytest.mark.lists
@pytest.mark.vicuna
def test_at_most_a_twentieth_of_gym_qa_is_padding(tmp_path):
    if "SEFAR_TOKENIZER_DIR" not in os.environ:
        pytest.skip("needs the Llama tokenizer: set SEFAR_TOKENIZER_DIR to its folder")
    lists = finegym_folder()
    classes = read_categories(lists / "gym99_categories.txt")
    elements = read_elements(lists / "gym99_train_element_v1.1.txt")
    pool = to_clips(elements, classes, split="unlabeled")
    labeled = {clip.id for clip in draw_labeled(pool, SplitConfig(rate=0.05, seed=0))}
    clips = [clip for clip in pool if clip.id in labeled]
    questions = build_questions(clips, classes, rule="public", seed=0).questions
    assert len(questions) == 1316
    tokenizer = load_tokenizer(os.environ["SEFAR_TOKENIZER_DIR"])
    cache = toy_llm.cache(tmp_path, toy_llm.questions(2))  # of Vicuna's shape: 32 tokens a clip
    dataset = QuestionDataset(questions, cache, tokenizer, video_id=32000, answer_style="mixed")
    plain = [dataset.lengths[p] for p in random.Random(0).sample(range(1316), 1316)]
    assert padding_share(plain, batch_size=16) == pytest.approx(0.207, abs=0.015)
    for epoch in range(2):
        dataset.begin_epoch(epoch)
        sampler = LengthBucketedSampler(dataset, batch_size=16, multiple=1)
        order = [dataset.lengths[place] for place in sampler]
        assert Counter(order) == Counter(dataset.lengths)
        assert padding_share(order, batch_size=16) <= 0.05
