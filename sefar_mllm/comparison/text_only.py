"""C2: the language model before any fine-tuning reads the question and sees no video.

What it gets right it knows from words. Letters are scored in all rotations of the options, as for
the other rows.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.assemble import load_tokenizer
from sefar_mllm.data import pad_batch
from sefar_mllm.prompt import EncodedPrompt, Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring.predict import Prediction, as_prediction, batches, positions
from sefar_mllm.scoring.rotations import rotate

NOTHING = ""  # the clip that is shown


def predict_text_only(
    language_model: str, questions: Sequence[Question], *, batch_size: int, device: str
) -> list[Prediction]:
    """Letter scores of an untrained language model, from the text of the questions.

    Args:
        language_model: folder or hub name.
        questions: what to answer.
        batch_size: questions scored at a time.
        device: where it runs.

    Raises:
        OSError: the language model is not there.
        ValueError: a prompt is longer than it reads.
        FloatingPointError: it gives a letter a logit that is no number.
    """
    tokenizer = load_tokenizer(language_model)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        language_model, dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    model.eval().to(torch.device(device))
    found: dict[str, Prediction] = {}
    for batch in batches(questions, batch_size):
        logits = text_logits(model, tokenizer, batch)
        for question, scores in zip(batch, logits, strict=True):
            found[question.question_id] = as_prediction(question, NOTHING, scores)
    return [found[question.question_id] for question in questions]


@torch.inference_mode()
def text_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters after the questions' texts, in each rotation of their options.

    Raises:
        ValueError: a prompt is longer than the language model reads.
    """
    count = len(questions[0].options)
    prompts = [
        encode_conversation(
            tokenizer,
            [Turn(question_text(question.stem, rotate(question.options, rotation)))],
            num_video_tokens=0,
            video_id=len(tokenizer),
        )
        for question in questions
        for rotation in range(count)
    ]
    refuse_long(prompts, questions, model.config.max_position_embeddings)
    batch = pad_batch(prompts, tokenizer.pad_token_id, side="left")
    logits = model(
        input_ids=batch["input_ids"].to(model.device),
        attention_mask=batch["attention_mask"].to(model.device),
        position_ids=positions(batch["attention_mask"]).to(model.device),
        logits_to_keep=1,
    ).logits[:, -1, letter_ids(tokenizer, count)]
    return rearrange(
        logits.float().cpu(), "(q rotation) letter -> q rotation letter", q=len(questions)
    )


def refuse_long(
    prompts: Sequence[EncodedPrompt], questions: Sequence[Question], limit: int
) -> None:
    """Nothing is ever cut.

    Args:
        prompts: of all questions, as many for each.
        questions: that they ask.
        limit: tokens that the language model reads.

    Raises:
        ValueError: a prompt is longer.
    """
    each = len(prompts) // len(questions)
    for number, prompt in enumerate(prompts):
        if len(prompt.ids) > limit:
            raise ValueError(
                f"question {questions[number // each].question_id}: without video its prompt has "
                f"{len(prompt.ids)} tokens, the language model reads {limit}; shorten it"
            )
