"""What the renderer draws: clips of elements, and single pictures of random poses.

One painter serves both, so a backbone pretrained on the pictures knows the look of the clips.
"""

from qa_data.synthetic.clip import Filming, film, render_clip
from qa_data.synthetic.figure import JOINT_NAMES
from qa_data.synthetic.pose_image import PoseImage, random_pose_image

__all__ = ["JOINT_NAMES", "Filming", "PoseImage", "film", "random_pose_image", "render_clip"]
