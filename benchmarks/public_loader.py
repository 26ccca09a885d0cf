"""The public code's way from a video to both views of an unlabeled clip, written from its facts.

Two decodings, each of which opens the file and seeks every frame with OpenCV; each frame brought to
a short side of 480; the clip normalized as float32; then, for each element by itself, a random
scale, crop and flip (multisample.py, transform.py, d0435a9). The loaders are timed against it.
"""

import random
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SEGMENTS = [[3, 7], [1, 5], [0, 2, 4, 6]]
"""Eighths of the clip that the elements of 2-2-4 sample."""


def both_views(path: Path, rng: random.Random) -> tuple[list[Tensor], list[Tensor]]:
    """(weak, strong) elements, each (channel, frame, 224, 224), normalized."""
    weak = [augmented(element, rng, flip=False) for element in decoded(path, rng)]
    strong = [augmented(element, rng, flip=True) for element in decoded(path, rng)]
    return weak, strong


def decoded(path: Path, rng: random.Random) -> list[np.ndarray]:
    """The frames of each element, sought one by one."""
    video = cv2.VideoCapture(str(path))
    num_frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    bounds = [round(segment * num_frames / 8) for segment in range(9)]
    elements = []
    for segments in SEGMENTS:
        frames = []
        for segment in segments:
            number = rng.randint(bounds[segment], bounds[segment + 1] - 1)
            video.set(cv2.CAP_PROP_POS_FRAMES, number)
            frames.append(enlarged(video.read()[1]))
        elements.append(np.stack(frames))
    video.release()
    return elements


def enlarged(picture: np.ndarray) -> np.ndarray:
    """Short side 480, RGB."""
    height, width = picture.shape[:2]
    scale = 480 / min(height, width)
    large = cv2.resize(picture, (int(width * scale), int(height * scale)))
    return cv2.cvtColor(large, cv2.COLOR_BGR2RGB)


def augmented(frames: np.ndarray, rng: random.Random, *, flip: bool) -> Tensor:
    """One element: normalized, scaled to a short side of 256 to 320, cropped, mirrored."""
    clip = (torch.from_numpy(frames).float() / 255 - 0.45) / 0.225
    clip = clip.permute(3, 0, 1, 2)
    height, width = clip.shape[2:]
    short = round(rng.uniform(256, 320))
    scale = short / min(height, width)
    size = (int(height * scale), int(width * scale))
    clip = F.interpolate(clip, size=size, mode="bilinear", align_corners=False)
    top, left = rng.randint(0, size[0] - 224), rng.randint(0, size[1] - 224)
    clip = clip[:, :, top : top + 224, left : left + 224]
    return clip.flip(-1) if flip and rng.random() < 0.5 else clip
