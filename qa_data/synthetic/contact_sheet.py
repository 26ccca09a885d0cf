"""One picture of all classes: name and eight frames in time, all facing right."""

from collections.abc import Sequence

import cv2
import numpy as np

from qa_data.synthetic.clip import film, render_clip
from qa_data.synthetic.drawing import Picture
from qa_data.synthetic.elements import Element
from qa_data.synthetic.settings import SyntheticSettings
from qa_data.synthetic.source import make_source

NUM_MOMENTS = 8
ENLARGEMENT = 2
CAPTION_HEIGHT = 16


def _row(element: Element, label: int, settings: SyntheticSettings) -> Picture:
    rng = np.random.default_rng([settings.seed, 3, label])
    filming = film(rng, num_frames=4 * NUM_MOMENTS, size=settings.size, faces_left=False)
    source = make_source(settings.seed, label % settings.num_train_sources, settings.size)
    frames = render_clip(element, filming, source, without=settings.without)[2::4]
    strip = np.hstack(list(frames))
    strip = np.repeat(np.repeat(strip, ENLARGEMENT, axis=0), ENLARGEMENT, axis=1)
    caption = np.full((CAPTION_HEIGHT, strip.shape[1], 3), 255, np.uint8)
    text = f"{label} {element.name}"
    cv2.putText(caption, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([caption, strip])


def contact_sheet(elements: Sequence[Element], settings: SyntheticSettings) -> Picture:
    """RGB picture with one row for each class."""
    return np.vstack([_row(element, label, settings) for label, element in enumerate(elements)])


def png_bytes(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    encoded, data = cv2.imencode(".png", picture[..., ::-1])
    if not encoded:
        raise OSError(
            "OpenCV could not encode the contact sheet as PNG; is its PNG codec built in?"
        )
    return data.tobytes()
