"""The legend of every shape annotation: axis names, and the tensors that travel together.

Axes: batch, channel, frame, height, width of a clip; row, column of the patch grid; token = row x
column; dim of a feature; class. A temporal element is a clip of a few frames, and an action is seen
as a list of elements, the fine ones first and the context one last.
"""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

CHANNEL_AXIS = 1
FRAME_AXIS = 2

Clip: TypeAlias = Float[Tensor, "batch channel frame height width"]
# Elements of one list differ in their number of frames, and in nothing else.
Element: TypeAlias = Float[Tensor, "batch channel _ height width"]
Feature: TypeAlias = Float[Tensor, "batch dim"]
PatchTokens: TypeAlias = Float[Tensor, "batch frame token dim"]
FrameTokens: TypeAlias = Float[Tensor, "batch frame row column dim"]
Logits: TypeAlias = Float[Tensor, "batch class"]
Probs: TypeAlias = Float[Tensor, "batch class"]
PerClip: TypeAlias = Float[Tensor, "batch"]
Labels: TypeAlias = Int[Tensor, "batch"]
KeepMask: TypeAlias = Bool[Tensor, "row column"]
