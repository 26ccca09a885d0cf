"""The student as one graph: in a process of its own, since executed annotations would cut it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import torch
from sefar_core.checkpoint import build_model
from sefar_core.config import ModelConfig

config = ModelConfig(image_size=32, dim=16, depth=1, num_heads=2, fusion_dim=8, dropout=0.0,
                     drop_path_rate=0.0)
clips = [torch.randn(2, 3, frames, 32, 32) for frames in config.sizes]
for recompute in (False, True):
    torch.manual_seed(0)
    student = build_model(config, num_classes=5).train()
    student.backbone.recompute = recompute
    expected = student(clips)
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    student.compile(backend="aot_eager", fullgraph=True)
    logits = student(clips)
    logits.square().sum().backward()
    # A graph sums in another order than single operations.
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    for parameter, gradient in zip(student.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_the_compiled_student_is_one_graph_with_the_same_logits_and_gradients():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "equal\n", done.stderr
