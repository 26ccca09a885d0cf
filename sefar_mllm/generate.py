"""Greedy generation: prompts with their videos -> answers, whole or streamed.

Rows of unequal length are padded on the left, so that every answer continues from the last column;
a row's answer is then that of its prompt alone, up to rounding.
"""

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import (
    PreTrainedTokenizerBase,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from sefar_mllm.adapters import Trained, composite
from sefar_mllm.dataset import pad_batch
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.prompt import EncodedPrompt

WORKER = ThreadPoolExecutor(1, thread_name_prefix="generate")
"""The one thread in which streamed answers are generated: CUDA graphs belong to a thread."""
CACHE_ROOM = 512
"""Tokens; the size of a static cache is a multiple of it."""


def generate_ids(  # noqa: PLR0913 - the prompts, and how an answer may end
    model: Trained,
    ids: Sequence[Sequence[int]],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    *,
    max_new_tokens: int,
    end_id: int | None = None,
    static_cache: bool = False,
) -> list[list[int]]:
    """The answers' ids, without the end mark.

    The prompts end where the answer begins. `end_id` is the end mark of an answer; None generates
    `max_new_tokens` in every row. `static_cache` as in `static_cache_of`.
    """
    vlm = composite(model)
    inputs = _inputs(vlm, ids, tokens, max_new_tokens=max_new_tokens, end_id=end_id)
    if static_cache:
        inputs["past_key_values"] = static_cache_of(vlm, inputs["input_ids"], max_new_tokens)
    whole = vlm.generate(**inputs)  # type: ignore[misc]
    answers = whole[:, inputs["input_ids"].shape[1] :].tolist()
    return [ids[: ids.index(end_id)] if end_id in ids else ids for ids in answers]


def stream(  # noqa: PLR0913 - the prompt, and how an answer may end
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    tokens: Float[Tensor, "frame row column dim"],
    *,
    max_new_tokens: int,
    static_cache: bool = False,
) -> Generator[str, None, None]:
    """The text of one answer in pieces, each as soon as its words are complete.

    A reader that stops, or is interrupted, stops the generation.
    """
    vlm = composite(model)
    inputs = _inputs(
        vlm, [ids], [tokens], max_new_tokens=max_new_tokens, end_id=tokenizer.eos_token_id
    )
    if static_cache:
        inputs["past_key_values"] = static_cache_of(vlm, inputs["input_ids"], max_new_tokens)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    unwanted = _Unwanted()

    def work() -> None:
        try:
            vlm.generate(  # type: ignore[misc]
                **inputs, streamer=streamer, stopping_criteria=StoppingCriteriaList([unwanted])
            )
        except BaseException:  # raised for the reader by answer.result()
            streamer.end()
            raise

    answer = WORKER.submit(work)
    try:
        yield from streamer
    finally:
        unwanted.event.set()
        wait([answer])
    answer.result()


def static_cache_of(
    vlm: SefarVlmForConditionalGeneration,
    input_ids: Int[Tensor, "batch token"],
    max_new_tokens: int,
) -> StaticCache:
    """Keys and values of a fixed size, with which transformers compiles the steps on CUDA: the
    first answer is slower, later ones are faster.

    The size is a multiple of `CACHE_ROOM`, since every size is compiled separately.
    """
    needed = input_ids.shape[1] + max_new_tokens
    room = -(-needed // CACHE_ROOM) * CACHE_ROOM
    return StaticCache(config=vlm.config.text_config, max_cache_len=room)


@contextmanager
def lora_switched_off(model: PeftModel) -> Iterator[None]:
    """Within it, the base language model answers behind the trained projector.

    peft's `disable_adapter` would also switch to the untrained projector, and the video would be
    noise.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class _Unwanted(StoppingCriteria):
    """Ends a generation that has no reader any more."""

    def __init__(self) -> None:
        self.event = Event()

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:  # type: ignore[override]
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


def _inputs(
    vlm: SefarVlmForConditionalGeneration,
    ids: Sequence[Sequence[int]],
    tokens: Sequence[Tensor],
    *,
    max_new_tokens: int,
    end_id: int | None,
) -> dict[str, Any]:
    """Arguments of `generate`: padded rows, greedy, ending at `end_id`."""
    prompts = [EncodedPrompt(list(row), list(row)) for row in ids]
    padding = 0  # hidden by the mask; any id of the vocabulary
    batch = pad_batch(prompts, padding, side="left")
    # The output layer never gives the placeholder: with it as end mark, no row ends early.
    end = vlm.config.video_token_id if end_id is None else end_id
    return {
        "input_ids": batch["input_ids"].to(vlm.device),
        "attention_mask": batch["attention_mask"].to(vlm.device),
        "video_tokens": torch.stack(list(tokens)).to(vlm.device),
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "eos_token_id": end,
        "pad_token_id": padding if end_id is None else end_id,
    }
