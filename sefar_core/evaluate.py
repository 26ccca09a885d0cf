"""How well a network recognizes: deterministic multi-view scores with their uncertainty.

The public code tests on one random view with a random flip; here every clip is seen at fixed
moments and crops, and the probabilities of its views are averaged (docs/paper_map.md, row 8).
Controls take the order of the frames, or all frames but one, from a network (`FRAME_ORDERS`,
`middle_moments`, `shuffle_frames`). `weigh_pseudo_labels` measures on clips of known class whether
adaptive regulation trusts the right pseudo-labels (row 6).
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from sefar_core.intervals import Limits, clustered_interval
from sefar_core.perturbation import permute_frames
from sefar_core.shapes import FRAME_AXIS, Labels, PerClip, Probs
from sefar_core.teacher import PseudoLabel

Frames = UInt8[Tensor, "frame height width 3"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies in [0, 1] over a set of clips."""

    num_clips: int
    top1: float
    top1_interval: Limits | None
    """95 % interval of top-1: source videos are resampled, since clips of one video are similar.
    None if all clips come from one source."""
    top5: float
    mean_class: float
    """Mean over classes of the accuracy within the class."""
    majority: float
    """Share of the commonest class: what a constant answer scores."""


@dataclass(frozen=True, kw_only=True)
class DirectionScores:
    """Accuracy in [0, 1] on the clips of classes that have an opposite; None without such clips."""

    direction: float | None
    """Share of them whose own class has a higher score than the opposite one."""
    direction_interval: Limits | None
    """95 % interval, source videos resampled; None if these clips come from one source."""


@torch.no_grad()
def predict(network: nn.Module, views: Iterable, device: torch.device) -> tuple[Probs, Tensor]:
    """Class probabilities of every clip, averaged over its views, and the clips' labels.

    `views` are batches (elements, labels, clip positions) with every clip as often as any other;
    the results are in the order of the positions. The network is put in evaluation mode. ValueError
    if the network's scores are not numbers.
    """
    network.eval()
    gathered, labels, places = [], [], []
    for elements, batch_labels, clips in views:
        logits = network([clip.to(device) for clip in elements])
        gathered.append(logits.float().softmax(dim=-1).cpu())
        labels.append(batch_labels)
        places.append(clips)
    probs, label, place = torch.cat(gathered), torch.cat(labels), torch.cat(places)
    broken = int(probs.isnan().any(dim=-1).sum())
    if broken:
        raise ValueError(
            f"the network's class scores are not numbers for {broken} of {len(probs)} views: its "
            f"training diverged, or its file is damaged; give another"
        )
    return average_views(probs, place), first_of_each(label, place)


def average_views(
    probs: Float[Tensor, "view class"], place: Int[Tensor, "view"]
) -> Float[Tensor, "clip class"]:
    """Mean probabilities of the views that share a place, in the order of the places."""
    clips, view_to_clip, num_views = place.unique(return_inverse=True, return_counts=True)
    total = probs.new_zeros(len(clips), probs.shape[1]).index_add_(0, view_to_clip, probs)
    return total / num_views[:, None]


def first_of_each(values: Int[Tensor, "view"], place: Int[Tensor, "view"]) -> Int[Tensor, "clip"]:
    """The value of each place, in the order of the places."""
    by_place = dict(zip(place.tolist(), values.tolist(), strict=True))
    return torch.tensor([by_place[clip] for clip in sorted(by_place)])


def score(probs: Probs, labels: Labels, sources: Sequence[str]) -> Scores:
    """Scores of a set of clips, by their true classes.

    `sources` are the videos that they were cut from, empty where they are not known. ValueError for
    no clip.
    """
    if len(labels) == 0:
        raise ValueError("no clip to score; check the split of the manifest")
    right = probs.argmax(dim=-1) == labels
    top5 = (probs.topk(min(5, probs.shape[1])).indices == labels[:, None]).any(dim=-1)
    return Scores(
        num_clips=len(labels),
        top1=right.float().mean().item(),
        top1_interval=clustered_interval(right.double().numpy(), sources),
        top5=top5.float().mean().item(),
        mean_class=(labels.bincount(weights=right.double()) / labels.bincount()).nanmean().item(),
        majority=labels.bincount().max().item() / len(labels),
    )


def confusion(probs: Probs, labels: Labels) -> Int[Tensor, "true guessed"]:
    """How many clips of each true class were taken for each class."""
    num_classes = probs.shape[1]
    cell = labels * num_classes + probs.argmax(dim=-1)
    return cell.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def pair_accuracy(
    probs: Probs, labels: Labels, pairs: Sequence[tuple[int, int]]
) -> Float[Tensor, "clip"]:
    """1 where the right one of two opposite classes has the higher score, for clips of a pair.

    The classes of a pair differ in the direction of motion alone.
    """
    opposite = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    clips = clips_in_pairs(labels, pairs)
    rivals = torch.tensor([opposite[int(labels[i])] for i in clips], dtype=torch.long)
    kept = torch.tensor(clips, dtype=torch.long)
    return (probs[kept, labels[kept]] > probs[kept, rivals]).float()


def clips_in_pairs(labels: Labels, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """Positions of the clips whose class is in one of the pairs, ascending."""
    paired = {label for pair in pairs for label in pair}
    return [i for i, label in enumerate(labels.tolist()) if label in paired]


def score_direction(
    probs: Probs, labels: Labels, sources: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> DirectionScores:
    """How well the classes of pairs are distinguished, as `pair_accuracy`, with the uncertainty.

    `sources` are the videos that the clips were cut from, empty where they are not known.
    """
    clips = clips_in_pairs(labels, pairs)
    if not clips:
        return DirectionScores(direction=None, direction_interval=None)
    right = pair_accuracy(probs, labels, pairs)
    interval = clustered_interval(right.double().numpy(), [sources[i] for i in clips])
    return DirectionScores(direction=right.mean().item(), direction_interval=interval)


def middle_moments(sizes: Sequence[int]) -> list[Tensor]:
    """A control: every element shows the middle of the clip in all of its frames."""
    return [torch.full((size,), 0.5) for size in sizes]


def shuffle_frames(elements: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """A control: the frames of all elements of a clip are permuted, for each clip anew."""
    frames = torch.cat(list(elements), dim=FRAME_AXIS)
    shuffled = permute_frames(frames, generator)
    return list(shuffled.split([clip.shape[FRAME_AXIS] for clip in elements], dim=FRAME_AXIS))


def in_order(frames: Frames, clip_id: str) -> Frames:
    """The frames as time shows them."""
    return frames


def reversed_order(frames: Frames, clip_id: str) -> Frames:
    """The last frame first."""
    return frames.flip(0)


def shuffled(frames: Frames, clip_id: str) -> Frames:
    """The frames in a permutation that depends on the clip's id alone.

    All permutations but the identity are equally likely over the ids.
    """
    count = len(frames)
    drawn = int.from_bytes(hashlib.sha512(clip_id.encode()).digest())
    number = 1 + drawn % (factorial(count) - 1) if count > 1 else 0
    return frames[permutation(number, count)]


def middle(frames: Frames, clip_id: str) -> Frames:
    """Frame number_of_frames // 2, from zero, as often as there are frames."""
    return frames[[len(frames) // 2] * len(frames)]


# A network that reads motion must score lower under every order but the first; one that reads
# scenes and poses need not. Each order is a function of the frames and the clip's id.
FRAME_ORDERS: Mapping[str, Callable[[Frames, str], Frames]] = {
    "in_order": in_order,
    "reversed": reversed_order,
    "shuffled": shuffled,
    "middle": middle,
}


def permutation(number: int, count: int) -> list[int]:
    """The permutation of 0..count-1 with this number, 0 to count! - 1, in dictionary order.

    Number 0 is the identity.
    """
    left = list(range(count))
    chosen = []
    for remaining in range(count - 1, -1, -1):
        place, number = divmod(number, factorial(remaining))
        chosen.append(left.pop(place))
    return chosen


@dataclass(frozen=True, kw_only=True)
class TrustScores:
    """Whether right pseudo-labels are trusted more than wrong ones."""

    pseudo_labels_right: float
    """Share of the pseudo-labels that are the true class."""
    trust_of_right: float | None
    """Mean trust in these; None if there are none."""
    trust_of_wrong: float | None
    """Mean trust in the others; None if there are none."""


def weigh_pseudo_labels(
    pseudo_label: Callable[[list[Tensor]], PseudoLabel],
    regulate: Callable[[PerClip, PerClip], PerClip],
    views: Iterable,
    device: torch.device,
) -> tuple[PerClip, Bool[Tensor, "batch"]]:
    """Trust in the pseudo-label of every view, and whether it is the true class.

    `regulate` makes trust of (confidence, spread); views come as in `predict`.
    """
    trust, right = [], []
    for elements, labels, _ in views:
        pseudo = pseudo_label([clip.to(device) for clip in elements])
        trust.append(regulate(pseudo.confidence, pseudo.spread).cpu())
        right.append(pseudo.label.cpu() == labels)
    return torch.cat(trust), torch.cat(right)


def score_trust(trust: PerClip, right: Bool[Tensor, "batch"]) -> TrustScores:
    """Mean trust in right and in wrong pseudo-labels, of at least one."""
    return TrustScores(
        pseudo_labels_right=right.double().mean().item(),
        trust_of_right=trust[right].mean().item() if right.any() else None,
        trust_of_wrong=trust[~right].mean().item() if not right.all() else None,
    )
