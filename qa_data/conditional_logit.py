"""Which of several options is chosen, as a linear function of the features of each.

The conditional logit: an option is chosen with probability proportional to exp(weights . features),
options of one question against each other. The weights have a normal prior, and the most probable
ones are found by Newton's method from zero: no draws, the same weights every time.

Source: McFadden, Conditional logit analysis of qualitative choice behavior (1974).
"""

import numpy as np

PRIOR_DEVIATION = 1.0  # of each weight; chosen beforehand, tuned on nothing
PRECISION = 1e-9  # largest slope in any weight, for each question
MAX_STEPS = 50


def fit(features: np.ndarray, present: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """The most probable weights.

    Args:
        features: (question, option, feature); what stands for options that do not exist is not
            read.
        present: (question, option), whether the option exists.
        answer: (question), which option was chosen.

    Raises:
        RuntimeError: no maximum found, which a concave objective rules out for finite features.
    """
    features = np.where(present[..., None], features, 0)
    questions = np.arange(len(answer))
    chosen = features[questions, answer].sum(axis=0)
    weights = np.zeros(features.shape[2])
    value = _log_posterior(features, present, answer, weights)
    for _ in range(MAX_STEPS):
        probs = choice_probs(features @ weights, present)
        mean = np.einsum("qo,qof->qf", probs, features)
        slope = chosen - mean.sum(axis=0) - weights / PRIOR_DEVIATION**2
        if np.abs(slope).max() < PRECISION * len(answer):
            return weights
        spread = (np.sqrt(probs)[..., None] * (features - mean[:, None])).reshape(-1, len(weights))
        curvature = spread.T @ spread + np.eye(len(weights)) / PRIOR_DEVIATION**2
        step = np.linalg.solve(curvature, slope)
        while (found := _log_posterior(features, present, answer, weights + step)) < value - 1e-9:
            step = step / 2
        weights, value = weights + step, found
    raise RuntimeError(f"no weights found for {features.shape} features in {MAX_STEPS} steps")


def choice_probs(scores: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Probability of each option (row a question); 0 for those that do not exist."""
    scores = np.where(present, scores, -np.inf)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def _log_posterior(
    features: np.ndarray, present: np.ndarray, answer: np.ndarray, weights: np.ndarray
) -> float:
    probs = choice_probs(features @ weights, present)
    likelihood = np.log(np.maximum(probs[np.arange(len(answer)), answer], 1e-300)).sum()
    return float(likelihood - (weights**2).sum() / (2 * PRIOR_DEVIATION**2))
