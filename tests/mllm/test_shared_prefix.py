import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from qa_data.files import SefarError
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.shared_prefix import branch_mask, common_length, hidden_states, join
from tests.oracles.letters import sharpen

VIDEO = 50  # the placeholder: the first id after the vocabulary
SHAPE = (2, 1, 2)
PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=26)


@pytest.fixture(scope="module")
def vlm():
    text = LlamaConfig(
        vocab_size=VIDEO,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    config = SefarVlmConfig(text, token_dim=6, token_shape=SHAPE)
    model = SefarVlmForConditionalGeneration(config).eval()
    sharpen(model)
    return model


def drawn(rng, *, shared, own):
    """Prompts with a common prefix that holds the video; each continues differently."""
    prefix = [1, *[VIDEO] * 4, *(rng.randrange(3, VIDEO) for _ in range(shared))]
    return [[*prefix, 3 + number % 40, *(rng.randrange(3, 50) for _ in range(length))]
            for number, length in enumerate(own)]  # fmt: skip


def test_the_row_is_the_common_prefix_and_the_rest_of_each():
    row = join([[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 4, 3]])
    assert row.ids == [5, 6, 7, 8, 9, 7, 4, 3]
    assert row.position == [0, 1, 2, 3, 2, 2, 3, 4]
    assert row.branch == [0, 0, 1, 1, 2, 3, 3, 3]
    assert row.paths == [[0, 1, 2, 3], [0, 1, 4], [0, 1, 5, 6, 7]]
    assert common_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert common_length([[1, 2], [1, 2, 4]]) == 1  # each keeps its last id
    assert common_length([[2, 1], [1, 1]]) == 0
    for prompts in ([], [[1], []]):
        with pytest.raises(ValueError, match="at least one token"):
            join(prompts)


@given(prefix=st.lists(st.integers(0, 2), max_size=4), rest=PROMPTS)
def test_every_prompt_can_be_read_off_its_path(prefix, rest):
    prompts = [[*prefix, *one] for one in rest]
    row = join(prompts)
    assert [[row.ids[place] for place in path] for path in row.paths] == prompts
    for path in row.paths:
        assert [row.position[place] for place in path] == list(range(len(path)))


def test_a_token_sees_the_prefix_and_its_own_branch_up_to_itself():
    mask = branch_mask(torch.tensor([[0, 0, 1, 2, 2, -1]]), torch.float32)
    assert mask[0, 0].eq(0).int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]
    assert mask.min() == torch.finfo(torch.float32).min


@pytest.mark.parametrize(("count", "attention"), [(2, "sdpa"), (5, "eager"), (26, "sdpa")])
def test_hidden_states_are_those_of_each_prompt_alone(vlm, count, attention):
    rng = random.Random(count)
    several = [
        drawn(rng, shared=3 * number, own=[rng.randrange(9) for _ in range(count)])
        for number in range(3)
    ]
    tokens = torch.randn(3, *SHAPE, 6, generator=torch.Generator().manual_seed(1))
    rows = [join(prompts) for prompts in several]
    vlm.set_attn_implementation(attention)
    with torch.inference_mode():
        got = hidden_states(vlm, rows, list(tokens), pad_id=2)
        vlm.set_attn_implementation("sdpa")
        for number, (prompts, row) in enumerate(zip(several, rows, strict=True)):
            for prompt, path in zip(prompts, row.paths, strict=True):
                alone = vlm.model(
                    torch.tensor([prompt]), video_tokens=tokens[number : number + 1]
                ).last_hidden_state[0]
                torch.testing.assert_close(got[number, path], alone, atol=1e-4, rtol=1e-4)


def test_padding_is_never_seen(vlm):
    rng = random.Random(0)
    rows = [join(drawn(rng, shared=2, own=[n, n])) for n in (1, 7)]
    tokens = list(torch.randn(2, *SHAPE, 6, generator=torch.Generator().manual_seed(1)))
    with torch.inference_mode():
        one, other = (hidden_states(vlm, rows, tokens, pad_id=pad) for pad in (2, 41))
    length = len(rows[0].ids)
    # The same shapes, and what is not seen weighs exactly 0.
    torch.testing.assert_close(one[0, :length], other[0, :length], atol=0.0, rtol=0.0)


def test_unusable_rows_and_attention_are_refused(vlm, monkeypatch):
    tokens = [torch.zeros(*SHAPE, 6)]
    split = [join([[1, VIDEO, VIDEO, 4], [1, VIDEO, VIDEO, 5]])]
    with pytest.raises(SefarError, match="has 2 placeholders, the video 4 tokens"):
        hidden_states(vlm, split, tokens, pad_id=2)
    name = "_attn_implementation_internal"
    monkeypatch.setattr(vlm.config.text_config, name, "flash_attention_2")
    with pytest.raises(ValueError, match="runs on flash_attention_2"):
        hidden_states(vlm, [join([[1, 2], [1, 3]])], tokens, pad_id=2)
