"""The learning of a probe: features and classes in, map and classifier out.

Map and classifier learn together, by full-batch AdamW on cross entropy, from the identity and from
zero, so that nothing is drawn. Weight decay, which pulls the map towards the identity, and the
number of steps are chosen on clips whose source videos the rest never saw.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

CHECK_STEPS = 25
WEIGHT_DECAYS = (0.01, 1.0, 10.0)
HELD_OUT = 0.2


class Solution(NamedTuple):
    """What learning gives; see `Probe`."""

    map: Float[Tensor, "dim dim"]
    weight: Float[Tensor, "class dim"]
    bias: Float[Tensor, "class"]


class Choice(NamedTuple):
    """Settings, and the accuracy that they had on sources that the probe had not seen."""

    weight_decay: float
    steps: int
    accuracy: float


def held_out(sources: Sequence[str], seed: int) -> Bool[Tensor, "clip"]:
    """Which clips are left out while settings are tried: whole sources, a fifth of the clips.

    Raises:
        ValueError: all clips come from one source.
    """
    names = sorted(set(sources))
    if len(names) < 2:
        raise ValueError(
            f"the settings of a probe are chosen on source videos of their own, but all labeled "
            f"clips come from {names}; label clips of another video, too"
        )
    random.Random(seed).shuffle(names)
    chosen: set[str] = set()
    for name in names[:-1]:
        if sum(source in chosen for source in sources) >= HELD_OUT * len(sources):
            break
        chosen.add(name)
    return torch.tensor([source in chosen for source in sources])


def choose(
    features: Float[Tensor, "clip dim"],
    rows: Int[Tensor, "clip"],
    out: Bool[Tensor, "clip"],
    *,
    max_steps: int,
    lr: float,
) -> Choice:
    """The settings with the best accuracy on the clips held out; of equals the gentlest."""
    tried: list[Choice] = []
    for decay in sorted(WEIGHT_DECAYS, reverse=True):
        walk = learn(features, rows, ~out, weight_decay=decay, lr=lr)
        for number, solution in enumerate(islice(walk, max_steps // CHECK_STEPS), start=1):
            right = accuracy_of(solution, features[out], rows[out])
            tried.append(Choice(decay, number * CHECK_STEPS, right))
    return max(tried, key=lambda choice: choice.accuracy)


def learn(
    features: Float[Tensor, "clip dim"],
    rows: Int[Tensor, "clip"],
    clips: Bool[Tensor, "clip"],
    *,
    weight_decay: float,
    lr: float,
) -> Iterator[Solution]:
    """Map and classifier after every `CHECK_STEPS` steps, without end.

    Args:
        features: mean tokens of clips.
        rows: class of each, counted from 0 without gaps.
        clips: those that are learned from; the others only say which classes there are.
        weight_decay: of AdamW; of the map's difference from the identity, and of the classifier.
        lr: of AdamW.

    Features are centered and brought to unit size for the optimizer; the solution is for features
    as they came.
    """
    num_classes = int(rows.max()) + 1
    features, rows = features[clips], rows[clips]
    middle = features.mean(dim=0)
    scale = (features - middle).square().mean().sqrt().clamp_min(1e-12)
    seen = (features - middle) / scale
    identity = torch.eye(features.shape[1])
    change = torch.zeros_like(identity, requires_grad=True)
    weight = torch.zeros(num_classes, features.shape[1], requires_grad=True)
    bias = torch.zeros(num_classes, requires_grad=True)
    optimizer = torch.optim.AdamW([change, weight, bias], lr=lr, weight_decay=weight_decay)
    while True:
        for _ in range(CHECK_STEPS):
            optimizer.zero_grad()
            # The two maps are multiplied before they meet the clips, which are more than classes.
            loss = F.cross_entropy(seen @ (weight + weight @ change).T + bias, rows)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            learned, scores = identity + change, weight / scale
            yield Solution(learned, scores, bias - scores @ learned @ middle)


def accuracy_of(
    solution: Solution, features: Float[Tensor, "clip dim"], rows: Int[Tensor, "clip"]
) -> float:
    """Share of the clips whose best score is their class."""
    scores = features @ (solution.weight @ solution.map).T + solution.bias
    return (scores.argmax(dim=-1) == rows).float().mean().item()
