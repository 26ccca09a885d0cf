"""Predictions that are right where a test wants them to be."""

import random
from collections.abc import Callable, Sequence

from sefar_mllm.scoring import Prediction


def predictions(
    right: Sequence[float], sources: Sequence[str], labels: Sequence[int | None], *, seed: int = 0
) -> list[Prediction]:
    """One prediction for each entry of `right`, which is 1.0 or 0.0; answers are drawn."""
    rng = random.Random(seed)
    made = []
    for i, (one, source, label) in enumerate(zip(right, sources, labels, strict=True)):
        answer = rng.randrange(4)
        chosen = answer if one else (answer + 1) % 4
        made.append(
            Prediction(
                question_id=str(i),
                video=f"clip{i}",
                shown=f"clip{i}",
                source=source,
                event=None if label is None else "FX" if label < 2 else "UB",
                label=label,
                answer=answer,
                probs=tuple(0.7 if place == chosen else 0.1 for place in range(4)),
                first_letter=chosen,
                strict=bool(one) and i % 2 == 0,
            )
        )
    return made


def made(
    count: int, right: Callable[[int, int], bool], *, classes: int = 4, sources: int = 5
) -> list[Prediction]:
    """Predictions of which `right(number, class)` says which are right; all take turns."""
    labels = [i % classes for i in range(count)]
    return predictions(
        [float(right(i, label)) for i, label in enumerate(labels)],
        [f"s{i % sources}" for i in range(count)],
        labels,
    )
