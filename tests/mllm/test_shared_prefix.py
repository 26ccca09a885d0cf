import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qa_data.files import SefarError
from sefar_mllm.adapters import composite
from sefar_mllm.shared_prefix import branch_mask, common_length, hidden_states, join
from tests.oracles import toy_llm

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=26)


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


def test_unusable_rows_and_attention_are_refused(sharp, monkeypatch):
    """Hidden states themselves are checked with the scores: see test_scoring.py."""
    vlm, tokens = composite(sharp), [torch.zeros(*toy_llm.SHAPE, toy_llm.DIM)]
    video = vlm.config.video_token_id
    split = [join([[1, video, video, 4], [1, video, video, 5]])]
    with pytest.raises(SefarError, match="has 2 placeholders, the video 32 tokens"):
        hidden_states(vlm, split, tokens, pad_id=2)
    name = "_attn_implementation_internal"
    monkeypatch.setattr(vlm.config.text_config, name, "flash_attention_2")
    with pytest.raises(ValueError, match="runs on flash_attention_2"):
        hidden_states(vlm, [join([[1, 2], [1, 3]])], tokens, pad_id=2)
