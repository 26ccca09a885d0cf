"""Steps of about one length, the same on any number of devices."""

import os
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from qa_data.finegym import read_elements, to_clips
from qa_data.generate import build_questions
from qa_data.taxonomy import read_categories
from sefar_core.data.splits import SplitConfig, draw_labeled
from sefar_mllm.build import load_tokenizer
from sefar_mllm.dataset import (
    PAD_ITEM,
    LengthBucketedSampler,
    QuestionDataset,
    bucketed,
    padding_share,
    split_batch,
)
from tests.finegym import finegym_folder
from tests.oracles import toy_llm


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
@pytest.mark.parametrize(("style", "before"), [("letter", 0.123), ("mixed", 0.207)])
def test_at_most_a_twentieth_of_gym_qa_is_padding(tmp_path, style, before):
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
    dataset = QuestionDataset(questions, cache, tokenizer, video_id=32000, answer_style=style)
    plain = [dataset.lengths[p] for p in random.Random(0).sample(range(1316), 1316)]
    assert padding_share(plain, batch_size=16) == pytest.approx(before, abs=0.015)
    for epoch in range(2):
        dataset.begin_epoch(epoch)
        sampler = LengthBucketedSampler(dataset, batch_size=16, multiple=1)
        order = [dataset.lengths[place] for place in sampler]
        assert Counter(order) == Counter(dataset.lengths)
        assert padding_share(order, batch_size=16) <= 0.05
