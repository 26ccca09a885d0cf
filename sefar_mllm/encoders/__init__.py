"""One contract for every encoder: frames of a clip -> tokens (batch frame row column dim).

`ENCODERS[name](folder)` makes an encoder. All see a clip at the same moments, the centers of its
equal segments in the order of time, unless the recognizer was trained on others; image models are
then shown those (`with_frame_times`). Each encoder scales, crops and normalizes frames by itself.

- base.py: what an encoder is.
- recognizer.py: SeFAR's, its supervised twin, what its classifier sees, and the controls.
- image_models.py: CLIP and EVA-CLIP as published.
- probe.py: CLIP and EVA-CLIP with a linear map trained on the labels that SeFAR had.
"""

from collections.abc import Callable, Mapping

from sefar_mllm.encoders.base import Encoder, pool, refuse_unequal_moments, with_frame_times
from sefar_mllm.encoders.image_models import clip, eva
from sefar_mllm.encoders.probe import clip_probe, eva_probe
from sefar_mllm.encoders.recognizer import (
    constant,
    random,
    recognizer_moments,
    sefar,
    sefar_elements,
    sefar_fused,
    supervised,
)

__all__ = [
    "ENCODERS",
    "Encoder",
    "pool",
    "recognizer_moments",
    "refuse_unequal_moments",
    "with_frame_times",
]

ENCODERS: Mapping[str, Callable[..., Encoder]] = {
    build.__name__: build
    for build in (
        sefar,
        supervised,
        sefar_elements,
        sefar_fused,
        clip,
        eva,
        clip_probe,
        eva_probe,
        random,
        constant,
    )
}
