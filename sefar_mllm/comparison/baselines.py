"""Baselines: answers without fine-tuning, for the controls C2 and C6.

C2: the language model before any fine-tuning reads the question and sees no video; its accuracy
comes from words alone. Letters are scored in all rotations of the options, as for the trained rows.
C6: encoders without a language model. Class probabilities come from the recognizer's own head,
which sees the same moments as its tokens, or from a linear classifier on the mean token of each
clip, trained on the labeled clips; they are restricted to the classes of the options. Where these
rows equal the fine-tuned ones, the language model adds nothing.

The rules of C0, which see no video, are in `evaluation.evaluate.blind_predictions`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.manifest import Clip
from qa_data.questions import Question
from sefar_core.checkpoint import load_for_classes
from sefar_core.config import shipped
from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
from sefar_core.data.dataset import read_from_folder, view_moments
from sefar_core.evaluate import predict as class_probs
from sefar_mllm.build import load_tokenizer
from sefar_mllm.dataset import pad_batch
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.linear_probe import fit_classifier, mean_tokens
from sefar_mllm.prompt import Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring import (
    Prediction,
    as_prediction,
    batches_by_options,
    positions,
    question_fields,
    rotate,
)

MATCH_WORDS = {
    "by_name": "in another order than in the manifest, matched by name",
    "unchecked": "not checked by name, since the recognizer or the manifest has no names",
}
Probs = Mapping[str, Float[Tensor, "class"]]
NO_CLIP = ""  # the id of the clip that is shown


def recognizer_probs(
    folder: Path,
    clips: Sequence[Clip],
    video_root: Path,
    device: str,
    names: Sequence[str | None],
) -> Probs:
    """Class probabilities of each clip from the recognizer's own head, at its center moments.

    They are in the order of `names`, the class names of the manifest by label. A recognizer with
    the same classes in another order is matched by name, with a note. CheckpointError if the
    recognizer scores other classes.
    """
    model, match = load_for_classes(folder, names)
    if match.state != "same":
        print(f"note: classes of {folder}: {MATCH_WORDS[match.state]}")
    model.to(device)
    views = evaluation_views(
        model,
        clips,
        partial(read_from_folder, root=video_root),
        moments=view_moments(model.sampling, model.sizes, 1),
        num_crops=1,
        loader=LoaderConfig(0),
    )
    probs, _ = class_probs(model, views, torch.device(device))
    return {clip.id: row for clip, row in zip(clips, probs, strict=True)}


def classifier_probs(
    folder: Path, labeled: Sequence[Clip], clip_ids: Sequence[str], num_classes: int
) -> Probs:
    """Class probabilities from a linear classifier on mean tokens, trained on labeled clips.

    `folder` is the encoder's token cache.
    """
    cache = TokenCache(folder, [*(clip.id for clip in labeled), *clip_ids])
    known = mean_tokens(cache, [clip.id for clip in labeled])
    labels = torch.tensor([clip.label for clip in labeled])
    center, spread = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    head = fit_classifier((known - center) / spread, labels, num_classes)
    with torch.inference_mode():
        probs = head((mean_tokens(cache, clip_ids) - center) / spread).softmax(dim=-1)
    return dict(zip(clip_ids, probs, strict=True))


def predict_from_probs(probs: Probs, questions: Sequence[Question]) -> list[Prediction]:
    """Answers from class probabilities, restricted to the classes of the options.

    For `strict`, an option with the text of the right one is right. SefarError if a question does
    not have the classes of its options.
    """
    predictions = []
    for question in questions:
        if question.option_labels is None:
            raise SefarError(
                f"question {question.question_id} does not have the classes of its options, which "
                f"rows without a language model need; build it with scripts/build_gym_qa.py"
            )
        options = probs[question.video][list(question.option_labels)].double().clamp(min=1e-12)
        best = int(options.argmax())
        predictions.append(
            Prediction(
                **question_fields(question),
                shown=question.video,
                answer=question.answer,
                probs=tuple((options / options.sum()).tolist()),
                first_letter=best,
                strict=question.options[best] == question.options[question.answer],
            )
        )
    return predictions


def predict_text_only(
    language_model: str, questions: Sequence[Question], *, batch_size: int, device: str
) -> list[Prediction]:
    """Letter scores of an untrained language model, from the text of the questions alone. OSError
    if it is missing; ValueError if a prompt is longer than its context; FloatingPointError if the
    logit of a letter is not a number.
    """
    tokenizer = load_tokenizer(language_model)
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    model = AutoModelForCausalLM.from_pretrained(
        shipped(language_model), dtype=dtype, use_safetensors=True, trust_remote_code=False
    )
    model.eval().to(torch.device(device))
    predictions: dict[str, Prediction] = {}
    for batch in batches_by_options(questions, batch_size):
        logits = text_logits(model, tokenizer, batch)
        for question, scores in zip(batch, logits, strict=True):
            predictions[question.question_id] = as_prediction(question, NO_CLIP, scores)
    return [predictions[question.question_id] for question in questions]


@torch.inference_mode()
def text_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]
) -> Float[Tensor, "question rotation letter"]:
    """Logits of the letters after the questions' texts, in each rotation of their options.
    ValueError if a prompt is longer than the context of the language model.
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
    limit = model.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        if len(prompt.ids) > limit:
            raise ValueError(
                f"question {questions[number // count].question_id}: without video its prompt has "
                f"{len(prompt.ids)} tokens, but the language model reads {limit}; shorten it"
            )
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
