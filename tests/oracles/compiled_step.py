"""One decoded token as one graph: compiled whole, with LoRA and without, it computes what it did.

A process of its own runs it (`python -m tests.oracles.compiled_step`): the checks of shapes that
the tests put into every function cannot be compiled.
"""

import tempfile
from pathlib import Path

import torch
from transformers import StaticCache

from sefar_mllm.adapters import composite
from sefar_mllm.generate import lora_switched_off
from tests.oracles import toy_chat


@torch.no_grad()
def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assistant = toy_chat.assistant(Path(folder))
    vlm = composite(assistant.model)
    tokens = toy_chat.video_tokens(0)
    ids = assistant.begin(tokens).prompt("What is this?")
    compiled = torch.compile(vlm, fullgraph=True, backend="eager")

    def next_logits(step) -> torch.Tensor:
        cache = StaticCache(config=vlm.config.text_config, max_cache_len=256)
        vlm(input_ids=torch.tensor([ids]), video_tokens=tokens[None], past_key_values=cache)
        place = torch.tensor([[len(ids)]])
        return step(input_ids=torch.tensor([[7]]), past_key_values=cache, position_ids=place).logits

    tuned = next_logits(vlm)
    torch.testing.assert_close(next_logits(compiled), tuned)
    with lora_switched_off(assistant.model):
        base = next_logits(vlm)
        torch.testing.assert_close(next_logits(compiled), base)
    torch.testing.assert_close(next_logits(compiled), tuned)
    assert not torch.allclose(tuned, base)


if __name__ == "__main__":
    main()
