"""How likely the model finds each option's text as its answer, without seeing the options.

The question is asked openly (`TEXT_REQUEST`), and every option's text, with the end mark behind
it, is scored as the answer: what training on texts makes likely. The prompt is computed once for
all options (`shared_prefix`). Texts differ in length and in how usual their words are, so this is
a diagnostic: compare the sum, the mean over tokens, and the difference to a run that does not see
the video (pointwise mutual information). docs/paper_map.md, row "letter scoring".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from qa_data.schema import Question
from sefar_mllm.adapters import Trained, composite
from sefar_mllm.model import SefarVlmForConditionalGeneration
from sefar_mllm.model_config import SefarVlmConfig
from sefar_mllm.prompt import IGNORE, TEXT_REQUEST, EncodedPrompt, Turn, encode_question
from sefar_mllm.scoring.predict import batches
from sefar_mllm.scoring.shared_prefix import hidden_states, join
from sefar_mllm.tokens.cache import TokenCache


@dataclass(frozen=True)
class TextScore:
    """How likely each option of one question is as its answer."""

    sums: tuple[float, ...]
    """Log-probability of each text with its end mark."""
    lengths: tuple[int, ...]
    """Tokens of each text with its end mark."""

    @property
    def means(self) -> tuple[float, ...]:
        """Log-probability of each text per token."""
        return tuple(total / n for total, n in zip(self.sums, self.lengths, strict=True))


def option_text_scores(
    model: Trained,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    cache: TokenCache,
    *,
    shown: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> dict[str, TextScore]:
    """Scores of every question's options, by question id and in the questions' order.

    Args:
        model: fine-tuned, in evaluation mode.
        tokenizer: its tokenizer.
        questions: what to answer; the number of options may differ.
        cache: tokens of the clips that are shown.
        shown: the clip to show for each question's clip; by default its own.
        batch_size: questions scored at a time.

    Raises:
        ValueError: a prompt is longer than the model reads.
    """
    vlm = composite(model)
    scores: dict[str, TextScore] = {}
    with tqdm(total=len(questions), desc="option texts", unit="q") as bar:
        for batch in batches(questions, batch_size):
            clips = [(shown or {}).get(q.video, q.video) for q in batch]
            prompts = [answered_prompts(tokenizer, question, vlm.config) for question in batch]
            tokens = [cache[clip] for clip in clips]
            found = text_scores(vlm, prompts, tokens, tokenizer.pad_token_id)
            scores |= {q.question_id: score for q, score in zip(batch, found, strict=True)}
            bar.update(len(batch))
    return {question.question_id: scores[question.question_id] for question in questions}


def answered_prompts(
    tokenizer: PreTrainedTokenizerBase, question: Question, config: SefarVlmConfig
) -> list[EncodedPrompt]:
    """The open question with each option as its answer."""
    user = f"{question.stem} {TEXT_REQUEST}"
    return [
        encode_question(tokenizer, Turn(user, option), config, question.question_id)
        for option in question.options
    ]


@torch.inference_mode()
def text_scores(
    vlm: SefarVlmForConditionalGeneration,
    prompts: Sequence[Sequence[EncodedPrompt]],
    tokens: Sequence[Float[Tensor, "frame row column dim"]],
    pad_id: int,
) -> list[TextScore]:
    """Scores of the labeled tokens of each question's prompts, which are about one clip."""
    rows = [join([prompt.ids for prompt in several]) for several in prompts]
    hidden = hidden_states(vlm, rows, tokens, pad_id)
    targets = [
        [taught(prompt, path) for prompt, path in zip(several, row.paths, strict=True)]
        for several, row in zip(prompts, rows, strict=True)
    ]
    # Which row, the place there that predicts, and the id that is to be predicted.
    line, place, token = torch.tensor(
        [
            (number, place, token)
            for number, several in enumerate(targets)
            for target in several
            for place, token in target
        ],
        device=hidden.device,
    ).unbind(dim=1)
    logits = vlm.lm_head(hidden[line, place]).float()
    log_probs = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(dim=-1)
    log_prob = iter(log_probs.cpu().split([len(one) for several in targets for one in several]))
    return [
        TextScore(tuple(next(log_prob).sum().item() for _ in several), tuple(map(len, several)))
        for several in targets
    ]


def taught(prompt: EncodedPrompt, path: Sequence[int]) -> list[tuple[int, int]]:
    """For each labeled id of a prompt, the place in the row that predicts it, and the id.

    Args:
        prompt: ids and labels.
        path: the places of its ids in the row.
    """
    return [
        (path[number - 1], label) for number, label in enumerate(prompt.labels) if label != IGNORE
    ]


def pointwise_information(
    scores: Mapping[str, TextScore], blind: Mapping[str, TextScore]
) -> dict[str, tuple[float, ...]]:
    """How much likelier the video makes each option: what a blind run finds likely taken off.

    Args:
        scores: of a run that sees the videos, by question id.
        blind: of a run that does not, of the same questions.

    Returns:
        By question id, a number for each option.

    Raises:
        ValueError: the runs differ in their questions or in the number of options.
    """
    unlike = [
        name
        for name in dict.fromkeys([*scores, *blind])
        if not (name in scores and name in blind) or len(scores[name].sums) != len(blind[name].sums)
    ]
    if unlike:
        raise ValueError(
            f"{len(unlike)} questions do not have as many options in both runs, for example "
            f"{unlike[0]}; score the same questions with both"
        )
    return {
        name: tuple(seen - unseen for seen, unseen in zip(row.sums, blind[name].sums, strict=True))
        for name, row in scores.items()
    }
