"""One contract for every encoder: frames of a clip -> tokens (batch frame row column dim).

All see the same moments of a clip, the centers of its equal segments in the order of time unless
the recognizer takes others, which image models are then shown too (`shown_at`). Each scales, crops
and normalizes the frames for itself. `ENCODERS[name](folder)` makes one: contract.py says what it
gives, recognizer.py has SeFAR's, its twin without SeFAR, what its classifier sees and the controls,
image_models.py CLIP and EVA-CLIP as published.py knows them, probe.py these two with a map that
learned from the same labels as SeFAR.
"""

from collections.abc import Callable, Mapping

from sefar_mllm.encoders.base import Encoder, pool, refuse_unequal_moments, shown_at
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
    "shown_at",
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
