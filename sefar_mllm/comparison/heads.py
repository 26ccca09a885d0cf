"""C6: encoders without a language model, asked the same questions.

Class probabilities are restricted to the classes of the options. They come from the recognizer's
own head, which sees the same moments as its tokens, or from a linear classifier on the mean token
of each clip, learned on the labeled clips. Where these rows are as good as the fine-tuned ones,
the language model adds nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qa_data.manifest import Clip
from qa_data.schema import Question
from sefar_core.checkpoint import load_for_classes
from sefar_core.data.dataset import read_from_folder, view_moments
from sefar_core.data.feeds import evaluation_views
from sefar_core.data.loader import Feed
from sefar_core.evaluate import predict as class_probs
from sefar_mllm.scoring.predict import Prediction, PredictionError
from sefar_mllm.tokens.cache import TokenCache

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
        feed=Feed(0),
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
