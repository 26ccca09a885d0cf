"""The comparison from videos to verdict at miniature size."""

from dataclasses import replace

import pytest
import torch

from sefar_core.checkpoint import build_model, save_encoder
from sefar_core.config import ModelConfig
from sefar_mllm.comparison.rows import ENCODER_ROWS
from sefar_mllm.comparison.run import compare_encoders
from sefar_mllm.config import FinetuneConfig, LoraSettings
from sefar_mllm.scoring import read_predictions
from tests.oracles import image_folders
from tests.oracles.toy_comparison import CLIPS, TEST, TRAIN, comparison, question_folder
from tests.oracles.videos import moving_bar, write_video

SIZES = ModelConfig(image_size=32, patch_size=8, dim=16, depth=1, num_heads=2, fusion_dim=8)


@pytest.mark.slow
def test_a_comparison_in_miniature(tmp_path, world):
    """Videos, two recognizers, CLIP in miniature and a toy Llama: two processes, two rates."""
    few = {"train": TRAIN[:8], "test": TEST[:8]}
    for number, clip in enumerate(CLIPS):
        write_video(tmp_path / clip.path, moving_bar(8 * number), fps=25)
    for seed, name in enumerate(("sefar", "supervised", "again")):
        torch.manual_seed(seed)
        save_encoder(build_model(SIZES, 4), SIZES, tmp_path / name)
    config = comparison(
        tmp_path,
        world.language_model,
        clip=image_folders.timm_folder(tmp_path / "clip", "clip"),
        lr_grid=(0.5, 1.0),
        dev_rate=0.25,
        jobs=2,
        finetune=FinetuneConfig(
            language_model=str(world.language_model),
            lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0, lr=1e-2),
            epochs=1,
            batch_size=4,
            micro_batch_size=4,
        ),
    )
    config = replace(
        config,
        sefar=(tmp_path / "sefar", tmp_path / "again"),
        questions=(question_folder(tmp_path / "qa-hard", "hard", **few),),
    )
    with image_folders.published_in_miniature():
        found = compare_encoders(config)
    rows = found["sets"]["qa-hard"]["rows"]
    missing = {name for name, row in rows.items() if row is None}
    assert {row.name for row in ENCODER_ROWS} & missing == {"eva", "eva_probe"}
    assert {"clip_probe-wrong_videos", "sefar-middle", "random_classifier"} <= rows.keys() - missing
    assert rows["sefar"]["num_seeds"] == 2 and rows["sefar"]["micro"]["spread"] is not None
    assert set(found["budget"]["factors"].values()) <= {0.5, 1.0}
    assert found["budget"]["steps"] == {"qa-hard": 2}
    page = (tmp_path / "out/comparison.md").read_text()
    assert "clip: weights not verified" in page
    own, wrong, other = (
        read_predictions(tmp_path / f"out/runs/qa-hard/{name}/predictions.jsonl")
        for name in ("sefar/seed-0", "sefar-wrong_videos/seed-0", "sefar/seed-3")
    )
    assert all(one.shown == one.video for one in own)
    assert all(one.shown != one.video for one in wrong)
    assert [one.probs for one in own] != [one.probs for one in other]
