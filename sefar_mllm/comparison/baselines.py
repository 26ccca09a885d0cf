"""Baselines: rows without fine-tuning, for the controls C0, C2 and C6.

C0: rules that see no video, see `evaluation.evaluate.blind_predictions`. C2: the language model
before any fine-tuning reads the question and sees no video; its accuracy comes from words alone.
Letters are scored in all rotations of the options, as for the trained rows.
C6: encoders without a language model. Class probabilities come from the recognizer's own head,
which sees the same moments as its tokens, or from a linear classifier on the mean token of each
clip, trained on the labeled clips; they are restricted to the classes of the options. Where these
rows equal the fine-tuned ones, the language model adds nothing.

Files and cache keys are those of the trained rows. A row is answered once, or once for each seed
that has its own encoder.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.manifest import Clip
from qa_data.questions import Question
from sefar_core.checkpoint import load_for_classes
from sefar_core.data.class_names import class_names
from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
from sefar_core.data.dataset import read_from_folder, view_moments
from sefar_core.evaluate import predict as class_probs
from sefar_core.shipped import shipped
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.experiment import (
    PREDICTIONS,
    SCORED,
    feature_folder,
    file_hash,
    is_finished,
    model_hash,
    record_finished,
    run_folder,
)
from sefar_mllm.comparison.rows import (
    BaselineRow,
    QuestionFolder,
    encoder_path,
    encoder_seeds,
    has_encoder_per_seed,
)
from sefar_mllm.dataset import pad_batch
from sefar_mllm.evaluation.evaluate import blind_predictions, text_scored
from sefar_mllm.feature_cache import TokenCache, read_index
from sefar_mllm.linear_probe import fit_classifier, mean_tokens
from sefar_mllm.prompt import EncodedPrompt, Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring import (
    Prediction,
    as_prediction,
    batches_by_options,
    positions,
    question_fields,
    rotate,
    write_predictions,
)

MATCH_WORDS = {
    "by_name": "in another order than in the manifest, matched by name",
    "unchecked": "not checked by name, since the recognizer or the manifest has no names",
}
Probs = Mapping[str, Float[Tensor, "class"]]
NO_CLIP = ""  # the id of the clip that is shown


def answer_baseline(
    row: BaselineRow,
    questions: QuestionFolder,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    device: str,
) -> None:
    """Answer the test questions, unless that was done before.

    Args:
        row: the baseline.
        questions: training and test questions.
        clips: the manifest.
        config: all settings.
        device: device of the models.

    Raises:
        StaleError: it was done before with other inputs.
    """
    for seed in baseline_seeds(row, config):
        folder = run_folder(config.out, questions, row.name, seed)
        inputs = baseline_inputs(row, questions, clips, config, seed)
        if is_finished(folder / SCORED, inputs):
            continue
        answers = predict_baseline(row, questions, clips, config, seed=seed, device=device)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(text_scored(answers, questions.test), folder / PREDICTIONS)
        record_finished(folder / SCORED, inputs)


def baseline_seeds(row: BaselineRow, config: CompareConfig) -> tuple[int, ...]:
    """The first seed, or all seeds where each has its own encoder."""
    return config.seeds[:1] if row.encoder is None else encoder_seeds(row.encoder, config)


def baseline_inputs(
    row: BaselineRow,
    questions: QuestionFolder,
    clips: Sequence[Clip],
    config: CompareConfig,
    seed: int,
) -> dict[str, Any]:
    """Everything that the answers of a row depend on; their cache key."""
    inputs: dict[str, Any] = {"questions": file_hash(questions.files["test"])}
    if row.kind == "rule":
        return inputs | {"train_questions": file_hash(questions.files["train"])}
    if row.encoder is None:
        return inputs | {"language_model": model_hash(config.finetune.language_model)}
    inputs |= {"tokens": read_index(_feature_path(row.encoder, config, seed))["key"]}
    if row.kind == "probe":
        inputs |= {"labels": {clip.id: clip.label for clip in labeled_clips(clips)}}
    return inputs


def labeled_clips(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split == "labeled"]


def predict_baseline(
    row: BaselineRow,
    questions: QuestionFolder,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    seed: int,
    device: str,
) -> list[Prediction]:
    """The row's answers to the test questions, with the encoder of a seed."""
    if row.kind == "rule":
        rng = np.random.default_rng(seed)
        return blind_predictions(questions.test, questions.train, rng=rng)[row.name]
    if row.kind == "text" or row.encoder is None:
        return predict_text_only(
            config.finetune.language_model,
            questions.test,
            batch_size=config.batch_size,
            device=device,
        )
    videos = {question.video for question in questions.test}
    if row.kind == "head":
        tested = [clip for clip in clips if clip.id in videos]
        folder = encoder_path(row.encoder, config, seed)
        names = class_names(clips)
        probs = recognizer_probs(folder, tested, config.video_root, device, names)
    else:
        labels = [clip.label for clip in clips if clip.label is not None]
        tokens = _feature_path(row.encoder, config, seed)
        probs = classifier_probs(tokens, labeled_clips(clips), sorted(videos), max(labels) + 1)
    return predict_from_probs(probs, questions.test)


def _feature_path(encoder: str, config: CompareConfig, seed: int) -> Path:
    own = seed if has_encoder_per_seed(encoder, config) else None
    return config.out / "tokens" / feature_folder(encoder, seed=own)


def recognizer_probs(
    folder: Path,
    clips: Sequence[Clip],
    video_root: Path,
    device: str,
    names: Sequence[str | None],
) -> Probs:
    """Class probabilities of each clip from the recognizer's own head, at its center moments.

    Args:
        folder: run folder of the recognizer.
        clips: clips to classify.
        video_root: folder that their paths are relative to.
        device: device of the recognizer.
        names: class names of the manifest, by label; the probabilities are in this order. A
            recognizer with the same classes in another order is matched by name, with a note.

    Raises:
        CheckpointError: the recognizer scores other classes.
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

    Args:
        folder: token cache of the encoder.
        labeled: clips to train on, all with a class.
        clip_ids: clips to classify.
        num_classes: number of classes.
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

    For `strict`, an option with the text of the right one is right.

    Raises:
        SefarError: a question does not have the classes of its options.
    """
    return [_answer(question, probs[question.video]) for question in questions]


def _answer(question: Question, probs: Float[Tensor, "class"]) -> Prediction:
    if question.option_labels is None:
        raise SefarError(
            f"question {question.question_id} does not have the classes of its options, which "
            f"rows without a language model need; build it with scripts/build_gym_qa.py"
        )
    options = probs[list(question.option_labels)].double()
    shares = options.clamp(min=1e-12) / options.clamp(min=1e-12).sum()
    best = int(shares.argmax())
    return Prediction(
        **question_fields(question),
        shown=question.video,
        answer=question.answer,
        probs=tuple(shares.tolist()),
        first_letter=best,
        strict=question.options[best] == question.options[question.answer],
    )


def predict_text_only(
    language_model: str, questions: Sequence[Question], *, batch_size: int, device: str
) -> list[Prediction]:
    """Letter scores of an untrained language model, from the text of the questions.

    Args:
        language_model: folder or hub name.
        questions: questions to answer.
        batch_size: number of questions scored at a time.
        device: device of the language model.

    Raises:
        OSError: the language model is missing.
        ValueError: a prompt is longer than its context.
        FloatingPointError: the logit of a letter is not a number.
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

    Raises:
        ValueError: a prompt is longer than the context of the language model.
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
    """Refuse prompts that the language model would cut.

    Args:
        prompts: prompts of all questions, equally many for each.
        questions: the questions.
        limit: context length of the language model, in tokens.

    Raises:
        ValueError: a prompt is longer.
    """
    each = len(prompts) // len(questions)
    for number, prompt in enumerate(prompts):
        if len(prompt.ids) > limit:
            raise ValueError(
                f"question {questions[number // each].question_id}: without video its prompt has "
                f"{len(prompt.ids)} tokens, but the language model reads {limit}; shorten it"
            )
