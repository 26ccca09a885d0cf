"""Make README's picture: test clips in a loop, with the recognizer's two likeliest classes.

    python docs/picture.py --run runs/demo        # after `make demo`

The clips are pairs of classes that differ in direction alone, and of each class the first test clip
of the manifest, so that no clip is chosen by what the recognizer makes of it. Clips differ in
length; all are shown in the same time here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from sefar_core.cli import refuse_unwritable, start

import tyro
from PIL import Image, ImageDraw, ImageFont

from qa_data.manifest import Clip, by_split, read_manifest
from qa_data.taxonomy import ElementClass, opposite_pairs, read_categories

SIDE, GAP, LINE = 150, 12, 17  # pixels: a clip, the space around it, a line of text
TITLE_LINES, TOP_CLASSES, LINES_PER_CLASS = 2, 2, 3
CLIP_TOP = 2 * GAP + TITLE_LINES * LINE
HEIGHT = CLIP_TOP + SIDE + 2 * GAP + TOP_CLASSES * LINES_PER_CLASS * LINE
WHITE, INK, GRAY, PALE = "#ffffff", "#1f2328", "#59636e", "#d0d7de"
GREEN, RED = "#1a7f37", "#cf222e"  # the true class; another one in the first place


@dataclass(frozen=True, kw_only=True)
class Picture:
    run: Path = Path("runs/demo")
    """Folder of a finished `scripts/demo.py`."""
    out: Path = Path("docs/images/demo.webp")
    """Animated WebP to write."""
    num_pairs: int = 3
    """Pairs of opposite classes to show, two clips each."""
    num_frames: int = 24
    """Pictures of a loop."""
    frame_ms: int = 90
    """Time that each is shown, milliseconds."""

    def __post_init__(self):
        if self.num_pairs < 1 or self.num_frames < 2 or self.frame_ms < 1:
            raise ValueError("num_pairs, num_frames (at least 2) and frame_ms must be positive")


class Guess(NamedTuple):
    """A class that the recognizer holds likely."""

    label: int
    prob: float


def main(settings: Picture) -> None:
    refuse_unwritable(files=[settings.out])
    run = settings.run
    classes = read_categories(run / "gym/categories.txt")
    test = by_split(read_manifest(run / "splits/manifest.csv"), "test")
    clips = choose_clips(test, classes, settings.num_pairs)
    guesses = recognize(run / "sefar", clips, run / "gym/videos")
    still = draw_panels(clips, guesses, classes)
    loop = animate(still, clips, run / "gym/videos", settings.num_frames)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = loop
    first.save(
        settings.out,
        save_all=True,
        append_images=rest,
        duration=settings.frame_ms,
        loop=0,
        quality=80,
        method=6,
    )
    right = sum(top[0].label == clip.label for clip, top in zip(clips, guesses, strict=True))
    print(f"{settings.out}: {len(clips)} clips, {right} right, {settings.out.stat().st_size:,} B")


def choose_clips(
    test: Sequence[Clip], classes: dict[int, ElementClass], num_pairs: int
) -> list[Clip]:
    """The first test clip of each class of `num_pairs` pairs, spread evenly over all pairs.

    Raises:
        ValueError: there are fewer pairs, or a class has no test clip.
    """
    pairs = opposite_pairs(classes.values())
    if len(pairs) < num_pairs:
        raise ValueError(f"the class list has {len(pairs)} opposite pairs; lower --num-pairs")
    chosen = [pairs[number * len(pairs) // num_pairs] for number in range(num_pairs)]
    first = {clip.label: clip for clip in reversed(test)}
    if lacking := [label for pair in chosen for label in pair if label not in first]:
        raise ValueError(f"class {lacking[0]} has no test clip; render more with --num-test")
    return [first[label] for pair in chosen for label in pair]


def recognize(run_dir: Path, clips: Sequence[Clip], video_root: Path) -> list[list[Guess]]:
    """The likeliest classes of each clip, the likeliest first; three views, as the demo scores."""
    import torch

    from sefar_core import load_encoder
    from sefar_core.data.dataloaders import LoaderConfig, evaluation_views
    from sefar_core.data.dataset import read_from_folder, view_moments
    from sefar_core.evaluate import predict

    model = load_encoder(run_dir)
    read = partial(read_from_folder, root=video_root)
    moments = view_moments(model.sampling, model.sizes, 3)
    views = evaluation_views(
        model, clips, read, moments=moments, num_crops=1, loader=LoaderConfig(0)
    )
    probs, _ = predict(model, views, torch.device("cpu"))
    best = probs.topk(TOP_CLASSES)
    return [
        [Guess(label, prob) for label, prob in zip(labels, values, strict=True)]
        for labels, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def draw_panels(
    clips: Sequence[Clip], guesses: Sequence[Sequence[Guess]], classes: dict[int, ElementClass]
) -> Image.Image:
    """All that does not move: above each clip its class, below it what the recognizer says."""
    still = Image.new("RGB", (left_of(len(clips)), HEIGHT), WHITE)
    draw = ImageDraw.Draw(still)
    for number, (clip, top) in enumerate(zip(clips, guesses, strict=True)):
        left = left_of(number)
        for line, text in enumerate(title(classes[clip.label], TITLE_LINES)):
            draw.text((left, GAP + line * LINE), text, fill=INK, font=font(13))
        for place, guess in enumerate(top):
            color = GREEN if guess.label == clip.label else GRAY if place else RED
            corner = left, CLIP_TOP + SIDE + GAP + place * LINES_PER_CLASS * LINE
            draw_guess(draw, corner, guess, classes[guess.label], color)
    return still


def left_of(number: int) -> int:
    """Where a panel begins: the two of a pair are nearer to one another than to others."""
    return GAP + number * (SIDE + GAP) + number // 2 * GAP


def draw_guess(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], guess: Guess, one: ElementClass, color: str
) -> None:
    """A bar as long as the probability, the probability, and the class in two lines."""
    left, top = corner
    end = left + max(2, round(guess.prob * (SIDE - 38)))
    draw.rectangle((left, top + 4, left + SIDE - 38, top + 11), fill=PALE)
    draw.rectangle((left, top + 4, end, top + 11), fill=color)
    percent = f"{100 * guess.prob:.0f} %"
    draw.text((left + SIDE, top), percent, fill=color, font=font(13), anchor="ra")
    for number, text in enumerate(title(one, LINES_PER_CLASS - 1)):
        draw.text((left, top + (number + 1) * LINE - 2), text, fill=color, font=font(12))


def title(one: ElementClass, most: int) -> list[str]:
    """The name of a class in at most so many lines of a panel."""
    return wrap(one.text, 22, max_lines=most, placeholder=" ...")


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def animate(
    still: Image.Image, clips: Sequence[Clip], video_root: Path, num_frames: int
) -> list[Image.Image]:
    """The panels with the clips in them, at evenly spaced moments of each clip."""
    from sefar_core.data.dataset import read_from_folder

    moments = [(number + 0.5) / num_frames for number in range(num_frames)]
    films = [read_from_folder(clip, moments, root=video_root).numpy() for clip in clips]
    loop = []
    for number in range(num_frames):
        whole = still.copy()
        for place, film in enumerate(films):
            clip = Image.fromarray(film[number]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            whole.paste(clip, (left_of(place), CLIP_TOP))
        loop.append(whole)
    return loop


if __name__ == "__main__":
    start(main, partial(tyro.cli, Picture, description=__doc__))
