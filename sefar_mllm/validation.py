"""Validation questions, held out of the training questions by source video, and their scores.

Clips of one source resemble one another, so a source is either trained on or validated on. The
validation questions are scored at the end of each epoch and no checkpoint is chosen by them: who
reads the curve chooses settings, and the test questions stay untouched. The settings and
metrics.jsonl call them dev (`dev_rate`, `dev_micro`).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from qa_data.files import SefarError
from qa_data.questions import Question
from sefar_core.data.group_split import group_counts, take_groups
from sefar_core.distributed import gather_lists
from sefar_core.run_dir import read_metrics
from sefar_mllm.build import is_sharded, outer_weights_gathered
from sefar_mllm.evaluation.evaluate import text_scored
from sefar_mllm.feature_cache import TokenCache
from sefar_mllm.scoring import Prediction, predict_answers

ENOUGH = 0.5  # of `rate`; fewer validation questions are refused


def cut_validation(
    questions: Sequence[Question], rate: float, seed: int
) -> tuple[list[Question], list[Question]]:
    """Training and validation questions, each in their order, without a source in common.

    Sources are tried in an order drawn from the seed. A source is held out if the held-out share
    stays within `rate` and every class of its clips keeps a training question: in a long tail a
    plain draw would remove some classes from training. The validation questions therefore have
    fewer of the rarest classes than training, so their macro accuracy compares runs and does not
    predict the test's. `rate` is the share of the questions to hold out, in [0, 1); 0 keeps all for
    training. Questions without a class are split by their sources alone. SefarError if a question
    has no source, or less than half of `rate` can be held out.
    """
    if rate == 0:
        return list(questions), []
    lone = [question.question_id for question in questions if not question.source]
    if lone:
        raise SefarError(
            f"{len(lone)} of {len(questions)} questions have no source, the first is {lone[0]}, so "
            f"no validation questions can be held out; give the clips' table (--manifest) or set "
            f"dev_rate 0"
        )
    counts = group_counts((question.source, question.label) for question in questions)
    totals = Counter(question.label for question in questions)
    spare = {label: inf if label is None else total - 1 for label, total in totals.items()}
    order = random.Random(f"dev/{seed}").sample(sorted(counts), len(counts))
    wanted = round(rate * len(questions))
    chosen = {*take_groups(counts, order, wanted, spare=spare, overshoot="never")}
    count = sum(counts[source].total() for source in chosen)
    if count < ENOUGH * wanted or count == 0:
        raise SefarError(
            f"dev_rate {rate} needs {wanted} of {len(questions)} questions, but only {count} can "
            f"be held out as whole sources of {len(counts)} with every class still trained; "
            f"take another dev_rate or seed, or set it to 0"
        )
    train = [question for question in questions if question.source not in chosen]
    return train, [question for question in questions if question.source in chosen]


def validation_scores(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    accelerator: Accelerator,
) -> dict[str, float]:
    """Micro and macro accuracy by letter likelihood.

    The processes split the questions; with a sharded model each process scores all of them. The
    model is left in evaluation mode; the Trainer sets the mode before each step.
    """
    named = [replace(one, question_id=f"{i:07d}") for i, one in enumerate(questions)]
    mine = named[accelerator.process_index :: accelerator.num_processes]
    model.eval()
    if is_sharded(model):  # a forward needs all processes: each scores the same questions
        with outer_weights_gathered(model):
            return accuracies(text_scored(predict_answers(model, tokenizer, named, cache), named))
    predictions = text_scored(predict_answers(model, tokenizer, mine, cache), mine)
    return accuracies(gather_lists(accelerator, predictions))


def accuracies(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Share of right answers, and its mean over classes; without classes only the share."""
    right: dict[int | None, list[bool]] = {}
    for one in predictions:
        right.setdefault(one.label, []).append(one.choice == one.answer)
    micro = sum(map(sum, right.values())) / len(predictions)
    if None in right:
        return {"dev_micro": micro}
    macro = sum(sum(one) / len(one) for one in right.values()) / len(right)
    return {"dev_micro": micro, "dev_macro": macro}


def best_epoch(run_dir: Path) -> dict[str, Any]:
    """The line of metrics.jsonl with the best score, the first of equals, for run.json."""
    lines = read_metrics(run_dir / "metrics.jsonl")
    return max((line for line in lines if "dev_micro" in line), key=itemgetter("dev_micro"))
