"""Videos for timing: a textured figure in front of a panning background, with camera noise."""

from pathlib import Path

import av
import cv2
import numpy as np

HEIGHT, WIDTH = 256, 320


def write_clip(path: Path, *, num_frames: int, gop: int, fps: int = 25, seed: int = 0) -> Path:
    """Write an H.264 file of 320x256 pixels at quality 23, as common encoders do."""
    rng = np.random.default_rng(seed)
    weights = ((24, 0.5), (6, 0.35), (2, 0.15))
    scene = sum(w * _texture(HEIGHT + 400, WIDTH + 800, grain, rng) for grain, w in weights)
    figure = _texture(96, 64, 8, rng)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=fps, options={"g": str(gop), "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(num_frames):
            picture = _frame(np.asarray(scene), figure, number, rng)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


def _texture(height: int, width: int, grain: int, rng: np.random.Generator) -> np.ndarray:
    coarse = rng.random((height // grain + 2, width // grain + 2, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _frame(
    scene: np.ndarray, figure: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    x, y = int(200 + 150 * np.sin(number / 40)), int(100 + 60 * np.cos(number / 55))
    frame = scene[y : y + HEIGHT, x : x + WIDTH].copy()
    left = int((WIDTH - 64) * (0.5 + 0.5 * np.sin(number / 9)))
    top = int((HEIGHT - 96) * (0.5 + 0.5 * np.cos(number / 7)))
    frame[top : top + 96, left : left + 64] = figure
    frame += rng.normal(0, 0.01, frame.shape).astype(np.float32)
    return (frame.clip(0, 1) * 255).astype(np.uint8)
