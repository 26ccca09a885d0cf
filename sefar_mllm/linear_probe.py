"""A linear probe of an image encoder, fitted from its token cache: a map of its tokens.

The map learns through a classifier, which sees the mean mapped token of a clip. Both are trained
together on the labeled clips by full-batch AdamW on cross entropy, from the identity and from
zero, so that nothing is drawn. Weight decay, which pulls the map towards the identity, and the
number of steps are chosen on labeled clips whose source videos the rest does not have; then all
labeled clips are trained on. No other label is used: of the `val` clips, on which methods are
compared, only the accuracy is reported. No video is opened.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from qa_data.files import as_json, new_folder
from qa_data.manifest import Clip, by_split
from sefar_core.checkpoint import CheckpointError, contiguous
from sefar_core.data.class_names import class_names
from sefar_core.data.group_split import group_counts, group_key, take_groups
from sefar_mllm.encoders.base import origin_of
from sefar_mllm.encoders.probe import BASES, SETTINGS, WEIGHTS, Probe
from sefar_mllm.feature_cache import CacheError, TokenCache, write_tokens

CHECK_STEPS = 25
WEIGHT_DECAYS = (0.01, 1.0, 10.0)
HELD_OUT_SHARE = 0.2
LBFGS_STEPS = 200
LBFGS_WEIGHT_DECAY = 1e-3


class Solution(NamedTuple):
    """Map and classifier; see `Probe`."""

    map: Float[Tensor, "dim dim"]
    weight: Float[Tensor, "class dim"]
    bias: Float[Tensor, "class"]


class Choice(NamedTuple):
    """Settings, and the accuracy that they gave on the held-out sources."""

    weight_decay: float
    steps: int
    accuracy: float


def held_out(sources: Sequence[str], seed: int) -> Bool[Tensor, "clip"]:
    """Which clips are left out while settings are tried: whole sources, a fifth of the clips.
    ValueError if all clips come from one source.
    """
    names = sorted(set(sources))
    if len(names) < 2:
        raise ValueError(
            f"the settings of a probe are chosen on source videos of their own, but all labeled "
            f"clips come from {names}; label clips of another video, too"
        )
    random.Random(seed).shuffle(names)
    counts = group_counts((source, None) for source in sources)
    wanted = HELD_OUT_SHARE * len(sources)
    chosen = {*take_groups(counts, names[:-1], wanted, overshoot="always")}
    return torch.tensor([source in chosen for source in sources])


def choose_settings(
    features: Float[Tensor, "clip dim"],
    rows: Int[Tensor, "clip"],
    out: Bool[Tensor, "clip"],
    *,
    max_steps: int,
    lr: float,
) -> Choice:
    """The settings with the best accuracy on the held-out clips; of equals the most regularized."""
    tried: list[Choice] = []
    for decay in sorted(WEIGHT_DECAYS, reverse=True):
        walk = learn(features, rows, ~out, weight_decay=decay, lr=lr)
        for number, solution in enumerate(islice(walk, max_steps // CHECK_STEPS), start=1):
            accuracy = accuracy_of(solution, features[out], rows[out])
            tried.append(Choice(decay, number * CHECK_STEPS, accuracy))
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

    `rows` are the classes, counted from 0 without gaps. Only `clips` are trained on; the others
    show which classes there are. The decay is of the map's difference from the identity, and of the
    classifier. Features are centered and scaled to unit size for the optimizer; the solution is for
    the given features.
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
            # The two maps are multiplied first: there are more clips than classes.
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


def fit_probe(
    cache: TokenCache, clips: Sequence[Clip], *, max_steps: int, lr: float, seed: int
) -> tuple[Probe, dict[str, Any]]:
    """The probe of the cache's encoder, and its metrics.

    Clips of other splits than labeled and val are not used. `max_steps` is a multiple of
    `CHECK_STEPS`; `seed` is that of the cut into sources seen and held out.
    CacheError if these tokens cannot be the base of a probe; ValueError if the labeled clips have
    one class, or one source.
    """
    _check_base(cache)
    labeled, val = by_split(clips, "labeled"), by_split(clips, "val")
    labels = tuple(sorted({int(clip.label) for clip in labeled if clip.label is not None}))
    if len(labels) < 2:
        raise ValueError(f"a probe needs 2 classes or more, but the labels are {labels}")
    features, rows = mean_tokens(cache, [clip.id for clip in labeled]), _rows(labeled, labels)
    out = held_out([group_key(clip) for clip in labeled], seed)
    choice = choose_settings(features, rows, out, max_steps=max_steps, lr=lr)
    every = torch.ones_like(out)
    walk = learn(features, rows, every, weight_decay=choice.weight_decay, lr=lr)
    solution = next(islice(walk, choice.steps // CHECK_STEPS - 1, None))
    probe = Probe(
        base=cache.key["encoder"],
        base_digest=cache.key["digest"],
        base_origin=cache.origin,
        labels=labels,
        **solution._asdict(),
    )
    accuracy = {"labeled": accuracy_of(solution, features, rows), "held_out": choice.accuracy}
    if val:
        accuracy["val"] = accuracy_of(
            solution, mean_tokens(cache, [clip.id for clip in val]), _rows(val, labels)
        )
    names = class_names(clips)
    metrics = {
        "class_names": [names[label] for label in labels],
        "clips": {"labeled": len(labeled), "held_out": int(out.sum()), "val": len(val)},
        "settings": {
            "weight_decay": choice.weight_decay,
            "steps": choice.steps,
            "lr": lr,
            "seed": seed,
        },
        "accuracy": {name: round(value, 4) for name, value in accuracy.items()},
    }
    return probe, metrics


def fit_classifier(
    features: Float[Tensor, "clip dim"], labels: Int[Tensor, "clip"], num_classes: int
) -> nn.Linear:
    """Multinomial logistic regression with weight decay, by L-BFGS from zero; no random numbers.

    The features are standardized.
    """
    head = nn.Linear(features.shape[1], num_classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(
        head.parameters(), max_iter=LBFGS_STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-6
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        fit = F.cross_entropy(head(features), labels)
        total = fit + LBFGS_WEIGHT_DECAY * head.weight.square().sum() / 2
        total.backward()
        return total

    optimizer.step(loss)
    return head.requires_grad_(False)


def mean_tokens(cache: TokenCache, clip_ids: Sequence[str]) -> Float[Tensor, "clip dim"]:
    """The mean of all tokens of each clip."""
    return torch.stack([cache[clip_id].float().mean(dim=(0, 1, 2)) for clip_id in clip_ids])


def save_probe(folder: Path, probe: Probe, metrics: dict[str, Any]) -> None:
    """Write a probe, all or nothing; one of that name is replaced. CheckpointError if the folder
    holds something else.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / WEIGHTS).exists():
        raise CheckpointError(
            f"{folder} holds something that is not a probe; give a folder that does not exist"
        )
    base = {"encoder": probe.base, "digest": probe.base_digest, "dim": len(probe.map)}
    state = {"map": probe.map, "weight": probe.weight, "bias": probe.bias}
    settings = {"base": base | probe.base_origin, "labels": list(probe.labels), **metrics}
    with new_folder(folder) as draft:
        save_file(contiguous(state), draft / WEIGHTS)
        (draft / SETTINGS).write_text(as_json(settings), encoding="utf-8")


def map_cache(cache: TokenCache, probe: Probe, probe_dir: Path, folder: Path) -> None:
    """Write the tokens that the probe's encoder would give for all clips of its base's cache.

    Clips that the folder holds already are left. CacheError if the probe was trained on other
    tokens, or the folder holds other ones.
    """
    encoder, digest = cache.key["encoder"], cache.key["digest"]
    if (encoder, digest) != (probe.base, probe.base_digest):
        raise CacheError(
            f"{cache.folder} has tokens of {encoder} with digest {digest}, but the probe in "
            f"{probe_dir} was trained on {probe.base} with digest {probe.base_digest}; give the "
            f"cache that it was trained on, or fit it again with scripts/fit_probe.py"
        )
    origin = origin_of(probe_dir, 0) | {"weights": cache.origin["weights"]}
    key = cache.key | {"encoder": probe.name, "digest": probe.digest}
    tokens = (probe.mapped(cache[clip_id].float()) for clip_id in cache.spans)
    write_tokens(folder, key, origin, cache.spans, tokens)


def _check_base(cache: TokenCache) -> None:
    name, order = cache.key["encoder"], cache.key["frame_order"]
    if name not in BASES:
        raise CacheError(
            f"{cache.folder} has tokens of {name}, but probes are for {', '.join(BASES)}, which "
            f"saw no labels; give the token cache of one of them"
        )
    if order != "in_order":
        raise CacheError(
            f"{cache.folder} has tokens of frames shown {order}; a probe is trained on frames in "
            f"order: give the token cache of those"
        )


def _rows(clips: Sequence[Clip], labels: Sequence[int]) -> Int[Tensor, "clip"]:
    """The index of each clip's label among the labels; -1, which no score has, for others."""
    places: dict[int | None, int] = {label: place for place, label in enumerate(labels)}
    return torch.tensor([places.get(clip.label, -1) for clip in clips])
