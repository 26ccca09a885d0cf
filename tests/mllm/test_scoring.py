import copy
import math
from dataclasses import replace

import pytest
import torch

from qa_data.files import SefarError
from sefar_mllm.adapters import composite
from sefar_mllm.scoring import (
    Prediction,
    as_prediction,
    batches_by_options,
    letter_logits,
    option_log_probs,
    option_probs,
    parse_letter,
    predict_answers,
    read_predictions,
    rotate,
    write_predictions,
)
from tests.oracles import toy_llm
from tests.oracles.letters import letter_logits_alone, letter_logits_padded

OPTIONS = ("one", "two", "three", "four")
LONG = "stalder backward to handstand with 1 turn"


def drawn_logits(count=4):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(3, count, count, generator=generator)


def mean_log_probs(table):
    """Mean log-probability of each option, in plain floats, by looking up each letter's option."""
    count = len(table)
    totals = dict.fromkeys(OPTIONS[:count], 0.0)
    for rotation, row in enumerate(table):
        norm = math.log(sum(math.exp(value) for value in row))
        for letter, text in enumerate(rotate(OPTIONS[:count], rotation)):
            totals[text] += (row[letter] - norm) / count
    return list(totals.values())


@pytest.mark.parametrize("count", [2, 3, 4])
def test_options_get_the_mean_log_probability_of_their_letters(count):
    table = drawn_logits(count)
    expected = torch.tensor([mean_log_probs(one.tolist()) for one in table])
    torch.testing.assert_close(option_log_probs(table).mean(dim=1), expected)
    torch.testing.assert_close(option_probs(table), expected.softmax(dim=-1))


def test_letter_preferences_cancel_and_rotated_questions_have_rotated_probabilities():
    seen = {(letter, text) for r in range(4) for letter, text in enumerate(rotate(OPTIONS, r))}
    assert len(seen) == 16  # every option visits every letter
    bias = torch.tensor([5.0, -1.0, 0.0, 2.0])
    flat = option_probs(torch.zeros(1, 4, 4) + bias)
    torch.testing.assert_close(flat, torch.full((1, 4), 0.25))
    table = drawn_logits()
    # Rotation r of the question that begins with option 1 is rotation r + 1 of the original.
    turned = option_probs(table.roll(-1, dims=1))
    torch.testing.assert_close(turned, option_probs(table).roll(-1, dims=1))
    with pytest.raises(ValueError, match="4 options need 4 rotations"):
        option_log_probs(torch.zeros(1, 3, 4))


def test_strict_requires_the_right_text_in_every_rotation():
    (question,) = toy_llm.questions(1)
    question = replace(question, options=OPTIONS, answer=2)
    always = torch.zeros(4, 4)
    for rotation in range(4):
        always[rotation, rotate(OPTIONS, rotation).index("three")] = 3.0
    once_wrong = always.clone()
    once_wrong[2, rotate(OPTIONS, 2).index("one")] = 4.0
    found = [as_prediction(question, "clip", logits) for logits in (always, once_wrong)]
    assert [(one.strict, one.choice) for one in found] == [(True, 2), (False, 2)]
    twin = replace(question, options=("three", "two", "three", "four"))
    always[2, rotate(OPTIONS, 2).index("one")] = 4.0  # the other option with the right text
    assert as_prediction(twin, "clip", always).strict


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_are_refused_with_the_clip(broken):
    logits = torch.zeros(4, 4)
    logits[2, 1] = broken
    with pytest.raises(FloatingPointError, match="question 0000000, shown clip7: letter logits"):
        as_prediction(toy_llm.questions(1)[0], "clip7", logits)


READ = {
    0: ("A. salto forward", "A \nsalto forward"),
    1: ("(B) salto", "(B"),
    2: ("C", " C ", "\nC", "C."),
    3: ("D: giant circle",),
    None: (
        "E",
        "E. salto",
        "C, I think",
        "The answer is C.",
        "Best option:(C)",
        "c",
        "CD",
        "\u00c1",
    ),
}
MISREAD_BY_OTHERS = ("", "(", "Based on the video, the answer is D", "I cannot tell")
ARTICLES = ("a double salto, option D", "A salto forward", "A\tsalto forward")


def test_only_a_leading_letter_is_an_answer():
    for option, texts in READ.items():
        assert {text: parse_letter(text, 4) for text in texts} == dict.fromkeys(texts, option)
    for text in (*MISREAD_BY_OTHERS, *ARTICLES):
        assert parse_letter(text, 4) is None, text


@pytest.mark.parametrize("count", [2, 3, 26])
def test_there_are_as_many_letters_as_options(count):
    options = [parse_letter(letter, count) for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    assert options == [*range(count), *[None] * (26 - count)]


def uneven(count, *, num_options=4):
    """Questions whose stems and options differ in length."""
    return [
        replace(
            question,
            stem="What " + "very " * i + "hard move is this?",
            options=(*question.options[: num_options - 1], LONG[: 10 + 9 * i]),
        )
        for i, question in enumerate(toy_llm.questions(count, num_options=num_options))
    ]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return toy_llm.cache(tmp_path_factory.mktemp("tokens"), toy_llm.questions(6))


def tokens_of(cache, questions):
    return [cache[question.video].float() for question in questions]


def alone(vlm, tokenizer, questions, tokens):
    pairs = zip(questions, tokens, strict=True)
    return torch.stack([letter_logits_alone(vlm, tokenizer, *pair) for pair in pairs])


@pytest.mark.parametrize(("num_options", "attention"), [(2, "sdpa"), (3, "eager"), (4, "sdpa")])
def test_letter_logits_are_those_of_each_prompt_alone(
    sharp, tokenizer, cache, num_options, attention
):
    questions = uneven(3, num_options=num_options)
    tokens = tokens_of(cache, questions)
    vlm = composite(sharp)
    expected = alone(vlm, tokenizer, questions, tokens)
    assert expected.std(dim=1).median() > 0.02
    vlm.set_attn_implementation(attention)
    got = letter_logits(sharp, tokenizer, questions, tokens)
    vlm.set_attn_implementation("sdpa")
    # A joined row is summed in another order than a prompt alone, by some processors.
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_in_16_bits_letter_logits_are_as_near_as_those_of_a_batch(sharp, tokenizer, cache):
    questions = uneven(3)
    tokens = tokens_of(cache, questions)
    coarse = copy.deepcopy(sharp).bfloat16()
    vlm = composite(coarse)
    vlm.model.multi_modal_projector.float()
    expected = alone(vlm, tokenizer, questions, tokens)
    batch = letter_logits_padded(vlm, tokenizer, questions, tokens)
    got = letter_logits(coarse, tokenizer, questions, tokens)
    assert (got - expected).abs().max() < 2 * (batch - expected).abs().max() + 0.02


@pytest.mark.parametrize("letters", ["DCBA", "EFGH"])
def test_other_letters_mark_the_options_and_are_the_answers(sharp, tokenizer, cache, letters):
    (question,) = uneven(1)
    tokens = cache[question.video].float()
    expected = letter_logits_alone(composite(sharp), tokenizer, question, tokens, letters)
    got = letter_logits(sharp, tokenizer, [question], [tokens], letters=letters)
    torch.testing.assert_close(got[0], expected, atol=1e-4, rtol=1e-4)
    (one,) = predict_answers(sharp, tokenizer, [question], cache, letters=letters)
    assert one.first_letter == int(expected[0].argmax())


@pytest.mark.parametrize(
    ("stem", "letters", "words"),
    [
        ("which?", "ABCA", "option markers 'ABCA'"),
        ("which?", "ABCE", "option markers 'ABCE'"),  # E is two tokens of this tokenizer
        ("which?", "ABC", "2 to 3 options, got 4"),
        ("why " * 400, "ABCD", "question 0000000: its prompt has .* model reads 512"),
    ],
)
def test_prompts_that_cannot_be_scored_are_refused(sharp, tokenizer, cache, stem, letters, words):
    questions = [replace(toy_llm.questions(1)[0], stem=stem)]
    with pytest.raises(ValueError, match=words):
        predict_answers(sharp, tokenizer, questions, cache, letters=letters)


def test_clips_are_projected_once_and_logits_computed_at_the_ends(sharp, tokenizer, cache):
    vlm, shapes = composite(sharp), []
    hooks = [
        part.register_forward_hook(lambda module, inputs, out: shapes.append(inputs[0].shape))
        for part in (vlm.model.multi_modal_projector, vlm.lm_head)
    ]
    predict_answers(sharp, tokenizer, uneven(2), cache)
    for hook in hooks:
        hook.remove()
    assert [tuple(shape) for shape in shapes] == [(2, 8, 2, 2, 12), (2, 4, 32)]


def test_batches_are_of_equal_options_and_smaller_the_more_there_are():
    questions = [*uneven(5), *uneven(5, num_options=2)]
    questions += [replace(q, options=tuple(f"move {k}" for k in range(16))) for q in uneven(5)]
    found = list(batches_by_options(questions, 4))
    sizes = [(len(batch), len(batch[0].options)) for batch in found]
    assert sizes == [(4, 2), (1, 2), (4, 4), (1, 4)] + [(1, 16)] * 5
    assert sorted(map(id, questions)) == sorted(id(q) for batch in found for q in batch)
    assert all(len({len(q.options) for q in batch}) == 1 for batch in found)


def test_batches_change_no_probability_and_predictions_keep_the_order(sharp, tokenizer, cache):
    questions = [*toy_llm.questions(5), replace(toy_llm.questions(6, num_options=2)[5], answer=1)]
    whole = predict_answers(sharp, tokenizer, questions, cache, batch_size=8)
    single = predict_answers(sharp, tokenizer, questions, cache, batch_size=1)
    assert [p.question_id for p in whole] == [q.question_id for q in questions]
    assert [len(p.probs) for p in whole] == [4, 4, 4, 4, 4, 2]
    for one, other in zip(whole, single, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


def test_another_clip_is_shown_on_request(sharp, tokenizer, cache):
    questions = toy_llm.questions(5)
    shown = {f"clip{i}": f"clip{(i + 2) % 5}" for i in range(5)}
    shuffled = predict_answers(sharp, tokenizer, questions, cache, shown=shown)
    moved = [replace(q, video=shown[q.video]) for q in questions]
    assert {p.video: p.shown for p in shuffled} == shown
    expected = predict_answers(sharp, tokenizer, moved, cache)
    for one, other in zip(shuffled, expected, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-5)


def test_predictions_are_read_as_written_and_other_lines_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    with pytest.raises(SefarError, match="no predictions at"):
        read_predictions(path)
    predictions = [
        Prediction(
            question_id=str(i), video=f"clip{i}", shown=f"clip{i + 1}", source=f"s{i}",
            event=None if i == 2 else "FX", label=None if i == 2 else i, answer=i % 2,
            probs=(0.25 + i / 10, 0.75 - i / 10), first_letter=1 - i % 2, strict=i == 0,
        )
        for i in range(3)
    ]  # fmt: skip
    write_predictions(predictions, path)
    assert read_predictions(path) == predictions
    for text in (b"{", b"{}", b"[]", b"7", b"\xff"):
        path.write_bytes(text + b"\n")
        with pytest.raises(SefarError, match=r"p\.jsonl, line 1"):
            read_predictions(path)
