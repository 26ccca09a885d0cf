"""Rows without fine-tuning (C0, C2, C6): answered once, or for each seed that has an encoder of
its own.

Their files lie beside those of the trained rows, with the same record of what they were made from.

C6: encoders without a language model, asked the same questions.

Class probabilities are restricted to the classes of the options. They come from the recognizer's
own head, which sees the same moments as its tokens, or from a linear classifier on the mean token
of each clip, learned on the labeled clips. Where these rows are as good as the fine-tuned ones,
the language model adds nothing.

C2: the language model before any fine-tuning reads the question and sees no video.

What it gets right it knows from words. Letters are scored in all rotations of the options, as for
the other rows.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from qa_data.manifest import Clip
from qa_data.questions import Question
from sefar_core.checkpoint import load_for_classes
from sefar_core.data.class_names import class_names
from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
from sefar_core.data.dataset import read_from_folder, view_moments
from sefar_core.evaluate import predict as class_probs
from sefar_mllm.build import load_tokenizer
from sefar_mllm.comparison.config import CompareConfig
from sefar_mllm.comparison.experiment import (
    PREDICTIONS,
    SCORED,
    cell_folder,
    file_hash,
    finish,
    finished,
    model_hash,
    token_folder,
)
from sefar_mllm.comparison.rows import (
    QuestionSet,
    Standalone,
    folder_of,
    own_for_each_seed,
    seeds_of,
)
from sefar_mllm.dataset import pad_batch
from sefar_mllm.evaluation.evaluate import blind_predictions, text_scored
from sefar_mllm.feature_cache import TokenCache, read_index
from sefar_mllm.prompt import EncodedPrompt, Turn, encode_conversation, letter_ids, question_text
from sefar_mllm.scoring import (
    Prediction,
    PredictionError,
    as_prediction,
    batches_by_options,
    positions,
    rotate,
    write_predictions,
)

DECAY = 1e-3  # of the classifier's weights; features are standardized
STEPS = 200

MATCH_WORDS = {
    "by_name": "in another order than in the manifest, matched by name",
    "unchecked": "names could not be checked, since recognizer or manifest tells none",
}

Probs = Mapping[str, Float[Tensor, "class"]]


def recognizer_probs(
    folder: Path,
    clips: Sequence[Clip],
    video_root: Path,
    device: str,
    names: Sequence[str | None],
) -> Probs:
    """Class probabilities of each clip from the recognizer's own head, at its center moments.

    Args:
        folder: the recognizer.
        clips: to look at.
        video_root: folder that their paths start from.
        device: where the recognizer runs.
        names: of the manifest's classes by label, which the probabilities follow. A recognizer
            that has the same classes in another order is matched by name, with a note.

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
    folder: Path, labeled: Sequence[Clip], asked: Sequence[str], num_classes: int
) -> Probs:
    """Class probabilities from a linear classifier on mean tokens, learned on labeled clips.

    Args:
        folder: the encoder's token cache.
        labeled: clips to learn from, all with a class.
        asked: clips to classify.
        num_classes: how many there are.
    """
    cache = TokenCache(folder, [*(clip.id for clip in labeled), *asked])

    def features(names: Sequence[str]) -> Float[Tensor, "clip dim"]:
        return torch.stack([cache[name].float().mean(dim=(0, 1, 2)) for name in names])

    known = features([clip.id for clip in labeled])
    labels = torch.tensor([clip.label for clip in labeled])
    center, spread = known.mean(dim=0), known.std(dim=0).clamp(min=1e-6)
    head = fit_classifier((known - center) / spread, labels, num_classes)
    with torch.inference_mode():
        probs = head((features(asked) - center) / spread).softmax(dim=-1)
    return dict(zip(asked, probs, strict=True))


def fit_classifier(
    features: Float[Tensor, "clip dim"], labels: Int[Tensor, "clip"], num_classes: int
) -> nn.Linear:
    """Multinomial logistic regression with weight decay, by L-BFGS from zero: nothing is drawn."""
    head = nn.Linear(features.shape[1], num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = nn.functional.cross_entropy(head(features), labels)
        total = fit + DECAY * head.weight.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return head.requires_grad_(False)


def among_options(probs: Probs, questions: Sequence[Question]) -> list[Prediction]:
    """Answers by class probabilities, restricted to the classes of the options.

    In `strict` options that read alike are equally right.

    Raises:
        PredictionError: a question does not tell the classes of its options.
    """
    return [_answer(question, probs[question.video]) for question in questions]


def _answer(question: Question, probs: Float[Tensor, "class"]) -> Prediction:
    if question.option_labels is None:
        raise PredictionError(
            f"question {question.question_id} does not tell the classes of its options, which "
            f"rows without a language model need; build it with scripts/build_gym_qa.py"
        )
    options = probs[list(question.option_labels)].double()
    shares = options.clamp(min=1e-12) / options.clamp(min=1e-12).sum()
    best = int(shares.argmax())
    return Prediction(
        question_id=question.question_id,
        video=question.video,
        shown=question.video,
        source=question.source or question.video,
        event=question.event,
        label=question.label,
        answer=question.answer,
        probs=tuple(shares.tolist()),
        first_letter=best,
        strict=question.options[best] == question.options[question.answer],
    )


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
    for batch in batches_by_options(questions, batch_size):
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


def seeds_alone(row: Standalone, config: CompareConfig) -> tuple[int, ...]:
    """One seed, or all where each has an encoder of its own."""
    return config.seeds[:1] if row.encoder is None else seeds_of(row.encoder, config)


def answer_alone(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    *,
    device: str,
) -> None:
    """Answer the test questions, unless that was done before.

    Args:
        row: which.
        questions: the set.
        clips: the manifest.
        config: all settings.
        device: where models run.

    Raises:
        StaleError: it was done before, from other inputs.
    """
    for seed in seeds_alone(row, config):
        folder = cell_folder(config.out, questions, row.name, seed)
        inputs = inputs_of(row, questions, clips, config, seed)
        if finished(folder / SCORED, inputs):
            continue
        found = choose(row, questions, clips, config, seed=seed, device=device)
        folder.mkdir(parents=True, exist_ok=True)
        write_predictions(text_scored(found, questions.test), folder / PREDICTIONS)
        finish(folder / SCORED, inputs)


def inputs_of(
    row: Standalone,
    questions: QuestionSet,
    clips: Sequence[Clip],
    config: CompareConfig,
    seed: int,
) -> dict[str, Any]:
    """All that the answers of a row depend on."""
    inputs: dict[str, Any] = {"questions": file_hash(questions.files["test"])}
    if row.kind == "rule":
        return inputs | {"train_questions": file_hash(questions.files["train"])}
    if row.encoder is None:
        return inputs | {"language_model": model_hash(config.finetune.language_model)}
    inputs |= {"tokens": read_index(_tokens(row.encoder, config, seed))["key"]}
    if row.kind == "probe":
        inputs |= {"labels": {clip.id: clip.label for clip in labeled_of(clips)}}
    return inputs


def labeled_of(clips: Sequence[Clip]) -> list[Clip]:
    return [clip for clip in clips if clip.split == "labeled"]


def choose(
    row: Standalone,
    questions: QuestionSet,
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
        asked = [clip for clip in clips if clip.id in videos]
        folder = folder_of(row.encoder, config, seed)
        names = class_names(clips)
        probs = recognizer_probs(folder, asked, config.video_root, device, names)
    else:
        labels = [clip.label for clip in clips if clip.label is not None]
        tokens = _tokens(row.encoder, config, seed)
        probs = classifier_probs(tokens, labeled_of(clips), sorted(videos), max(labels) + 1)
    return among_options(probs, questions.test)


def _tokens(encoder: str, config: CompareConfig, seed: int) -> Path:
    own = seed if own_for_each_seed(encoder, config) else None
    return config.out / "tokens" / token_folder(encoder, seed=own)
