"""Pretrain the demo's small ViT on rendered still images of random poses.

    python -m demo.backbone --out sefar_core/demo_weights

The paper starts from an ImageNet ViT; on two cores no network learns from scratch in minutes. The
demo starts from this 2-D ViT (timm's, with timm's names). From single images it learns the joints
of a gymnast, the direction of the body and the apparatus. Poses are random: no class, no motion and
no clip of the demo is used. sefar_core/demo_weights holds the result.
"""

from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import Pool
from pathlib import Path

from sefar_core.cli import refuse_unwritable, start

import cv2
import numpy as np
import torch
import tyro
from einops import rearrange
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from demo.pose_image import random_pose_image
from qa_data.files import by_umask, write_text
from qa_data.terminal import without_interrupts
from sefar_core.config import check_seed
from sefar_core.run_dir import surroundings

CELLS = 4  # heatmap cells along each side of a patch
APPARATUS = (None, "VT", "FX", "BB", "UB")
SPOT = 0.047  # width of a joint's spot, as a share of the image
# Those of the preset `demo` (sefar_core/presets.py).
IMAGE_SIZE, PATCH_SIZE, DIM, DEPTH, NUM_HEADS = 64, 16, 128, 4, 4
GRID = IMAGE_SIZE // PATCH_SIZE
BATCH_SIZE = 64
LR = 1e-3  # highest learning rate of AdamW; it decays to 0 by a cosine


@dataclass(frozen=True, kw_only=True)
class Settings:
    out: Path = Path("sefar_core/demo_weights")
    """Folder of vit.safetensors and its card."""
    num_images: int = 160_000
    """Number of images."""
    passes: int = 5
    """Number of epochs."""
    workers: int = 2
    """Number of processes that render images before training."""
    seed: int = 0
    """Random seed of weights and images."""

    def __post_init__(self):
        check_seed(self.seed, least=0)
        for name in ("num_images", "passes", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def main(settings: Settings) -> None:
    refuse_unwritable(folders=[settings.out])

    torch.manual_seed(settings.seed)
    train = draw(settings, settings.num_images, settings.seed)
    held_out = draw(settings, 2048, settings.seed + 1)
    network = build_network(pose_size=train[1].shape[1], num_joints=train[2].shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.05)
    steps = settings.passes * settings.num_images // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.05)
    bar = tqdm(range(steps), desc="learn poses", mininterval=5)
    for step in bar:
        picks = torch.randint(settings.num_images, (BATCH_SIZE,))
        frames, poses, joints, apparatus = (part[picks] for part in train)
        loss = pose_loss(network, frames, poses, heatmaps(joints), apparatus)
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
    with without_interrupts():
        started = Pool(settings.workers)
    with started as pool:
        drawn = pool.imap(partial(draw_one, seed), range(number), 64)
        bar = tqdm(drawn, total=number, desc="draw poses", mininterval=5)
        *images, apparatus = zip(*bar, strict=True)
    return (*(torch.from_numpy(np.stack(parts)) for parts in images), torch.tensor(apparatus))


def draw_one(seed: int, index: int):
    """One image, its pose vector, its joints and its apparatus."""
    cv2.setNumThreads(1)
    image = random_pose_image(np.random.default_rng((seed, index)), size=IMAGE_SIZE)
    place = image.joints.astype(np.float32) / IMAGE_SIZE
    center = place.mean(axis=0)
    pose = np.concatenate(
        [
            4 * (place - center).ravel(),
            4 * (center - 0.5),
            4 * image.depths / IMAGE_SIZE,
            image.angles / 90,
            image.facing,
            image.torso_angle,
        ]
    )
    frame = image.frame.transpose(2, 0, 1).copy()
    return frame, pose.astype(np.float32), place, APPARATUS.index(image.apparatus)


def build_network(*, pose_size: int, num_joints: int):
    """The ViT, and linear heads that predict the pose from its tokens."""
    vit = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=NUM_HEADS,
        num_classes=0,
    )
    heads = nn.ModuleDict(
        {
            "vit": vit,
            "pose_of_cls": nn.Linear(DIM, pose_size),
            "pose_of_patch": nn.Linear(DIM, pose_size),
            "heat": nn.Linear(DIM, num_joints * CELLS**2),
            "apparatus": nn.Linear(DIM, len(APPARATUS)),
        }
    )
    vit.pos_embed.data[0, 1:] = wave_positions()
    nn.init.constant_(heads["heat"].bias, -4.0)
    return heads


def wave_positions():
    """Sines and cosines of row and column, so that positions are known from the first step."""
    quarter = DIM // 4
    rates = 0.01 ** (torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(GRID), torch.arange(GRID), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (row, column)]
    return 0.5 * torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def heatmaps(joints):
    """A soft spot for each joint (batch, joint, 2 in [0, 1]) in the cells of each patch."""
    side = GRID * CELLS
    cells = (torch.arange(side) + 0.5) / side
    near = torch.exp(-((joints[..., None] - cells) ** 2) / (2 * SPOT**2))
    column, row = near.unbind(dim=2)
    return rearrange(
        row[..., :, None] * column[..., None, :],
        "batch joint (y high) (x wide) -> batch (y x) (joint high wide)",
        y=GRID,
        x=GRID,
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
    frames, poses, joints, apparatus = held_out
    network.eval()
    with torch.no_grad():
        by_cls, by_patch, _, apparatus_logits = read_pose(network, frames)
    network.train()
    joint_columns = slice(0, 2 * joints.shape[1])
    scale = frames.shape[-1] / 4

    def joint_error(predicted):
        return round((predicted - poses)[:, joint_columns].abs().mean().item() * scale, 2)

    def angle_error(columns):
        cosine = torch.cosine_similarity(by_cls[:, columns], poses[:, columns], dim=-1)
        return round(torch.rad2deg(torch.arccos(cosine.clamp(-1, 1))).median().item(), 1)

    facing, torso = slice(-4, -2), slice(-2, None)
    same_side = (by_cls[:, facing] * poses[:, facing]).sum(-1) > 0
    return {
        "joint_error_px": joint_error(by_cls),
        "joint_error_px_by_patch": joint_error(by_patch.mean(1)),
        "facing_error_deg": angle_error(facing),
        "facing_right": round(same_side.float().mean().item(), 3),
        "torso_error_deg": angle_error(torso),
        "apparatus_right": round(
            (apparatus_logits.argmax(-1) == apparatus).float().mean().item(), 3
        ),
    }


def save(vit, settings: Settings, errors: dict[str, float]) -> None:
    """Write the weights and a card with the settings and the errors."""
    settings.out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in vit.state_dict().items()}
    save_file(state, settings.out / "vit.safetensors")
    by_umask(settings.out / "vit.safetensors")
    ran = surroundings()
    shape = {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE, "dim": DIM, "depth": DEPTH}
    shape |= {"num_heads": NUM_HEADS, "batch_size": BATCH_SIZE, "lr": LR}
    rows = {**asdict(settings), **shape, **errors}
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    write_text(
        settings.out / "README.md",
        "# The demo's starting point: a small ViT trained on poses\n\n"
        "A 2-D vision transformer in timm's naming, pretrained by "
        "`python -m demo.backbone` on rendered still images of a gymnast in random "
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
