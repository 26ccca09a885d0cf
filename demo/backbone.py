"""Pretrain the demo's small ViT on rendered still images of random poses.

    python demo/backbone.py --out sefar_core/demo_weights

The paper starts from an ImageNet ViT; on two cores no network learns from scratch in minutes. The
demo starts from this 2-D ViT (timm's, with timm's names). From single images it learns the joints
of a gymnast, the direction of the body and the apparatus. Poses are random: no class, no motion and
no clip of the demo is used. The result is shipped in sefar_core/demo_weights.
"""

import math
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import tyro

from sefar_core.config import check_seed

CELLS = 4  # heatmap cells along each side of a patch
APPARATUS = (None, "VT", "FX", "BB", "UB")
SPOT = 0.047  # width of a joint's spot, as a share of the image


@dataclass(frozen=True, kw_only=True)
class Settings:
    out: Path = Path("sefar_core/demo_weights")
    """Folder of vit.safetensors and its card."""
    num_images: int = 160_000
    """Number of images."""
    passes: int = 5
    """Number of epochs."""
    batch_size: int = 64
    """Number of images per step."""
    lr: float = 1e-3
    """Highest learning rate of AdamW; it decays to 0 by a cosine."""
    image_size: int = 64
    """Side of an image, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels."""
    dim: int = 128
    """Width of a token."""
    depth: int = 4
    """Number of blocks."""
    num_heads: int = 4
    """Number of attention heads."""
    workers: int = 2
    """Number of processes that render images before training."""
    seed: int = 0
    """Random seed of weights and images."""

    def __post_init__(self):
        check_seed(self.seed, least=0)
        counts = ("num_images", "passes", "batch_size", "patch_size", "depth", "num_heads")
        for name in (*counts, "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be > 0, got {self.lr}")
        if self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size must be a multiple of patch_size, got {self.image_size} and "
                f"{self.patch_size}"
            )
        if self.dim < 1 or self.dim % self.num_heads or self.dim % 4:
            raise ValueError(f"dim must be a multiple of num_heads and of 4, got {self.dim}")


def main(settings: Settings) -> None:
    refuse_unwritable(folders=[settings.out])  # before the slow imports

    import torch
    from tqdm import tqdm

    torch.manual_seed(settings.seed)
    train = draw(settings, settings.num_images, settings.seed)
    held_out = draw(settings, 2048, settings.seed + 1)
    grid = settings.image_size // settings.patch_size
    network = build_network(settings, pose_size=train[1].shape[1], num_joints=train[2].shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.lr, weight_decay=0.05)
    steps = settings.passes * settings.num_images // settings.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.lr, total_steps=steps, pct_start=0.05
    )
    bar = tqdm(range(steps), desc="learn poses", mininterval=5)
    for step in bar:
        picks = torch.randint(settings.num_images, (settings.batch_size,))
        frames, poses, joints, apparatus = (part[picks] for part in train)
        loss = pose_loss(network, frames, poses, heatmaps(joints, grid), apparatus)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 2500 == 2499 or step == steps - 1:
            errors = report(network, held_out)
            bar.write(f"{step + 1}: {errors}")
            save(network["vit"], settings, {"steps": step + 1, **errors})


def draw(settings: Settings, number: int, seed: int):
    """Frames, pose vectors, joints in [0, 1] and apparatus of random poses, from (seed, index)."""
    from multiprocessing import Pool

    import torch
    from tqdm import tqdm

    from qa_data.terminal import without_interrupts

    frames, poses, joints, apparatus = [], [], [], []
    with without_interrupts():
        started = Pool(settings.workers)
    with started as pool:
        drawn = pool.imap(partial(draw_one, settings.image_size, seed), range(number), 64)
        bar = tqdm(drawn, total=number, desc="draw poses", mininterval=5)
        for frame, pose, place, kind in bar:
            frames.append(torch.from_numpy(frame))
            poses.append(torch.from_numpy(pose))
            joints.append(torch.from_numpy(place))
            apparatus.append(kind)
    return (torch.stack(frames), torch.stack(poses), torch.stack(joints), torch.tensor(apparatus))


def draw_one(size: int, seed: int, index: int):
    """One image, its pose vector, its joints and its apparatus."""
    import cv2
    import numpy as np

    from demo.pose_image import random_pose_image

    cv2.setNumThreads(1)
    image = random_pose_image(np.random.default_rng((seed, index)), size=size)
    place = image.joints.astype(np.float32) / size
    center = place.mean(axis=0)
    pose = np.concatenate(
        [
            4 * (place - center).ravel(),
            4 * (center - 0.5),
            4 * image.depths / size,
            image.angles / 90,
            image.facing,
            image.torso_angle,
        ]
    )
    frame = image.frame.transpose(2, 0, 1).copy()
    return frame, pose.astype(np.float32), place, APPARATUS.index(image.apparatus)


def build_network(settings: Settings, *, pose_size: int, num_joints: int):
    """The ViT, and linear heads that predict the pose from its tokens."""
    from timm.models.vision_transformer import VisionTransformer
    from torch import nn

    vit = VisionTransformer(
        img_size=settings.image_size,
        patch_size=settings.patch_size,
        embed_dim=settings.dim,
        depth=settings.depth,
        num_heads=settings.num_heads,
        num_classes=0,
    )
    heads = nn.ModuleDict(
        {
            "vit": vit,
            "pose_of_cls": nn.Linear(settings.dim, pose_size),
            "pose_of_patch": nn.Linear(settings.dim, pose_size),
            "heat": nn.Linear(settings.dim, num_joints * CELLS**2),
            "apparatus": nn.Linear(settings.dim, len(APPARATUS)),
        }
    )
    vit.pos_embed.data[0, 1:] = wave_positions(settings.image_size // settings.patch_size, vit)
    nn.init.constant_(heads["heat"].bias, -4.0)
    return heads


def wave_positions(grid: int, vit):
    """Sines and cosines of row and column, so that positions are known from the first step."""
    import torch

    quarter = vit.embed_dim // 4
    rates = 0.01 ** (torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (row, column)]
    return 0.5 * torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def heatmaps(joints, grid: int):
    """A soft spot for each joint (batch, joint, 2 in [0, 1]) in the cells of each patch."""
    import torch
    from einops import rearrange

    side = grid * CELLS
    cells = (torch.arange(side) + 0.5) / side
    near = torch.exp(-((joints[..., None] - cells) ** 2) / (2 * SPOT**2))
    column, row = near.unbind(dim=2)
    return rearrange(
        row[..., :, None] * column[..., None, :],
        "batch joint (y high) (x wide) -> batch (y x) (joint high wide)",
        y=grid,
        x=grid,
    )


def read_pose(network, frames):
    """Pose from the class token and from every patch token, logits of heatmaps and apparatus."""
    tokens = network["vit"].forward_features((frames.float() / 255 - 0.45) / 0.225)
    cls, patches = tokens[:, 0], tokens[:, 1:]
    return (
        network["pose_of_cls"](cls),
        network["pose_of_patch"](patches),
        network["heat"](patches),
        network["apparatus"](cls),
    )


def pose_loss(network, frames, poses, heat, apparatus):
    """Loss of the pose from the class token and every patch, the heatmaps and the apparatus.

    Every patch token predicts the whole pose, since TimeSformer's temporal attention runs among the
    patches of one place: each place must know the pose of the body. The heatmaps get training off
    its plateau: a single patch is enough to predict them.
    """
    from torch.nn import functional as F

    by_cls, by_patch, heat_logits, apparatus_logits = read_pose(network, frames)
    per_patch = poses[:, None].expand_as(by_patch)
    return (
        F.smooth_l1_loss(by_cls, poses, beta=0.1)
        + F.smooth_l1_loss(by_patch, per_patch, beta=0.1)
        + 10 * F.binary_cross_entropy_with_logits(heat_logits, heat)
        + 0.2 * F.cross_entropy(apparatus_logits, apparatus)
    )


def report(network, held_out) -> dict[str, float]:
    """Errors on held-out poses: joints in pixels, angles in degrees, shares that are right."""
    import torch

    frames, poses, joints, apparatus = held_out
    network.eval()
    with torch.no_grad():
        by_cls, by_patch, _, apparatus_logits = read_pose(network, frames)
    network.train()
    joint_columns = slice(0, 2 * joints.shape[1])
    scale = frames.shape[-1] / 4

    def angle_error(predicted, true):
        cosine = torch.cosine_similarity(predicted, true, dim=-1).clamp(-1, 1)
        return round(torch.rad2deg(torch.arccos(cosine)).median().item(), 1)

    return {
        "joint_error_px": round((by_cls - poses)[:, joint_columns].abs().mean().item() * scale, 2),
        "joint_error_px_by_patch": round(
            (by_patch.mean(1) - poses)[:, joint_columns].abs().mean().item() * scale, 2
        ),
        "facing_error_deg": angle_error(by_cls[:, -4:-2], poses[:, -4:-2]),
        "facing_right": round(
            ((by_cls[:, -4:-2] * poses[:, -4:-2]).sum(-1) > 0).float().mean().item(), 3
        ),
        "torso_error_deg": angle_error(by_cls[:, -2:], poses[:, -2:]),
        "apparatus_right": round(
            (apparatus_logits.argmax(-1) == apparatus).float().mean().item(), 3
        ),
    }


def save(vit, settings: Settings, errors: dict[str, float]) -> None:
    """Write the weights and a card with the settings and the errors."""
    from safetensors.torch import save_file

    from qa_data.files import by_umask, write_text
    from sefar_core.run_dir import surroundings

    settings.out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in vit.state_dict().items()}
    save_file(state, settings.out / "vit.safetensors")
    by_umask(settings.out / "vit.safetensors")
    ran = surroundings()
    rows = {**asdict(settings), **errors}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    write_text(
        settings.out / "README.md",
        "# The demo's starting point: a small ViT trained on poses\n\n"
        "A 2-D vision transformer in timm's naming, pretrained by "
        "`python demo/backbone.py` on rendered still images of a gymnast in random "
        "poses. Targets: 2-D joints, their depth and bend, the patch of each joint, facing, torso "
        "angle, and the apparatus. No class label, no motion and no clip of the demo was used. "
        "Errors are those of 2,048 held-out poses.\n\n"
        f"| setting or result | value |\n|---|---|\n{table}\n\n"
        f"Made with torch {ran['packages']['torch']} and timm {ran['packages']['timm']}. "
        "Apache-2.0, like the code.\n",
    )
    print(errors)


if __name__ == "__main__":
    start(main, partial(tyro.cli, Settings, description=__doc__))
