"""Two real checkpoints before the gate: the bundled one, and one with noise in its weights."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import command

from eval.demo import bundled_checkpoint
from eval.demo.stand_ins import draw_demo

TASKS = ("refcoco_val", "textvqa_val")
NOISE = 0.2  # of each weight's deviation


def noisy(folder):
    shutil.copytree(bundled_checkpoint(), folder)
    draws = torch.Generator().manual_seed(0)
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        for name, weight in weights.items():
            if weight.dim() > 1:
                noise = torch.randn(weight.shape, generator=draws) * weight.float().std() * NOISE
                weights[name] = (weight.float() + noise).to(weight.dtype)
        save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.mark.slow
def test_the_gate_blocks_noise_and_passes_the_same_weights(tmp_path):
    """What `make regression` is for: 10 for a checkpoint that got worse, 0 for its copy."""
    draw_demo(tmp_path / "data")
    copy = shutil.copytree(bundled_checkpoint(), tmp_path / "weights" / "copy")
    checkpoints = {"base": "demo", "copy": copy, "noisy": noisy(tmp_path / "weights" / "noisy")}
    for name, checkpoint in checkpoints.items():
        arguments = ("--model", checkpoint, "--data", tmp_path / "data", "--out", tmp_path / name)
        done = command("run", *TASKS, *arguments, "--dtype", "float32", "--allow-partial")
        assert done.returncode == 0, done.stderr
    same = command("compare", tmp_path / "base", tmp_path / "copy", "--gate")
    assert same.returncode == 0, same.stdout
    worse = command("compare", tmp_path / "base", tmp_path / "noisy", "--gate")
    assert worse.returncode == 10, worse.stdout
    assert "regressed: at least one benchmark is below the base" in worse.stdout
