"""What several tests run: the command line, and a tiny random model with a little data."""

import base64
import contextlib
import io
import json
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import torch
from PIL import Image

from eval.cli.main import Commands, main
from eval.launch.coordinator import run_rounds
from eval.launch.plan import RoundPlan
from eval.launch.queue import Here, Queue
from eval.launch.worker import Worker
from eval.runtime.checkpoint import save_checkpoint
from eval.runtime.config import QwenVLConfig
from eval.runtime.model import QwenVLForCausalLM

RANKS = 256
CONFIG = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "vocab_size": RANKS + 217 + 7,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "kv_channels": 64,
    "intermediate_size": 256,
    "seq_length": 320,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "a_field_of_the_future": 1,
    "visual": {
        "image_size": 56,
        "patch_size": 14,
        "width": 32,
        "layers": 2,
        "heads": 2,
        "mlp_ratio": 2.0,
        "output_dim": 128,
        "image_start_id": RANKS + 214,
    },
}


def import_commands():
    """Import the modules of all commands, which are otherwise imported when they are needed."""
    dict(Commands())


def command(*arguments):
    """Run the command line, in this process: another would take seconds to import torch."""
    argv, handlers = sys.argv, {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    stdout, stderr, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["qwen-vl-eval", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    except Exception:
        stderr.write(traceback.format_exc())
        code = 1
    finally:
        sys.argv = argv
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def answer_all(folder, tasks, data, asked, backend):
    """Have a back end answer what a run lacks, as the command does in one process."""
    digests = folder.digests()

    def write(number, isolated):
        plan = RoundPlan.write(
            folder.work_file(f"plan-{number}"),
            (
                request
                for task in tasks
                for request in folder.answers(task.name).pending(
                    task, data, asked[task.name], digests
                )
            ),
            alone=isolated,
        )
        for task in tasks:
            if task.name in plan.counts():
                folder.answers(task.name).open(task, data, asked[task.name])
        return plan

    def work(_plan, order):
        Worker(0, Queue(Here()), folder.journals(0)).drain(order, backend)
        return False

    return run_rounds(write, work, 1)


def make_model(seed: int = 0) -> QwenVLForCausalLM:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = QwenVLForCausalLM(QwenVLConfig(**CONFIG))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
    return model.eval()


def make_checkpoint(folder: Path, *, seed: int = 0, shards: int = 2) -> Path:
    """A two-layer Qwen-VL whose vocabulary is single bytes, in well under a second."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    ranks = "".join(f"{base64.b64encode(bytes([byte])).decode()} {byte}\n" for byte in range(RANKS))
    (folder / "qwen.tiktoken").write_text(ranks, encoding="ascii")
    save_checkpoint(make_model(seed), folder, shards)
    return folder


def make_data(folder: Path, questions: int = 7) -> Path:
    """OK-VQA in its official layout: some questions on three pictures, ten answers each."""
    images = folder / "coco" / "val2014"
    images.mkdir(parents=True, exist_ok=True)
    (folder / "okvqa").mkdir(exist_ok=True)
    for number in range(3):
        picture = Image.new("RGB", (60 + number, 40), (80 * number, 200, 30))
        picture.save(images / f"COCO_val2014_{number:012d}.jpg")
    rows = [
        {"image_id": n % 3, "question": f"What is number {n}?", "question_id": 10 * n + 5}
        for n in range(questions)
    ]
    answers = [
        {
            "question_id": row["question_id"],
            "image_id": row["image_id"],
            "answers": [{"answer": "red", "answer_id": human} for human in range(1, 11)],
        }
        for row in rows
    ]
    (folder / "okvqa" / "OpenEnded_mscoco_val2014_questions.json").write_text(
        json.dumps({"questions": rows}), encoding="utf-8"
    )
    (folder / "okvqa" / "mscoco_val2014_annotations.json").write_text(
        json.dumps({"annotations": answers}), encoding="utf-8"
    )
    return folder
