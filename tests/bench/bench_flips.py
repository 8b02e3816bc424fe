"""How many of the demo suite's answers move: another engine, another batch, another dtype.

    python tests/bench/bench_flips.py

Draws the demo's data, asks the bundled checkpoint all of its questions several ways, and counts
the predictions whose text differs from those of the plain engine, one request at a time. Writes
results/bench/flips.json and flips.md; exit status 1 where one differs in float32.
"""

import json
import sys
import tempfile
from pathlib import Path

from workloads import by_image

from eval import plugins
from eval.api import Backend, Request
from eval.demo.data import write_demo_data
from eval.engine.plain import PlainEngine
from eval.engine.shared import SharedEngine
from eval.run.requests import requests
from eval.run.spec import Spec
from eval.runtime import QwenVL

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "eval" / "demo" / "checkpoint"
RESULTS = ROOT / "results" / "bench"
ALONE = "plain engine, one at a time"
BATCHES = "plain engine, batches of 8 as the original's"
SHARED = "shared engine, 64 sequences"
FEW = "shared engine, 5 sequences"


def texts(engine: Backend, asked: list[Request]) -> dict[str, str]:
    """Request id -> answer."""
    return {prediction.id: prediction.text for prediction in engine.answer(asked)}


def main() -> int:
    """Ask, compare, write."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        write_demo_data(data)
        tasks = plugins.find_tasks(["all"])
        asked = by_image(each for task in tasks for _, each in requests(task, data, Spec()))
        table: dict[str, dict[str, int]] = {}
        for dtype in ("float32", "bfloat16"):
            model = QwenVL.from_pretrained(CHECKPOINT, dtype=dtype)
            expected = texts(PlainEngine(model, data), asked)
            ways: dict[str, Backend] = {
                BATCHES: PlainEngine(model, data, batch_size=8),
                SHARED: SharedEngine(model, data, sequences=64),
                FEW: SharedEngine(model, data, sequences=5),
            }
            if dtype == "bfloat16":
                full = QwenVL.from_pretrained(CHECKPOINT, dtype="float32")
                ways = {f"{ALONE}, float32": PlainEngine(full, data)} | ways
            table[dtype] = {
                way: sum(text != expected[name] for name, text in texts(engine, asked).items())
                for way, engine in ways.items()
            }
    write(len(asked), table)
    return int(any(moved for way, moved in table["float32"].items()))


def write(count: int, table: dict[str, dict[str, int]]) -> None:
    """The figures as JSON and as a table."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    told = {"answers": count, "moved": table}
    (RESULTS / "flips.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Answers that move",
        "",
        "`python tests/bench/bench_flips.py`, the demo suite on the bundled checkpoint, CPU.",
        "",
        f"Of {count:,} answers so many have another text than those of the {ALONE}, in the same",
        "dtype.",
        "",
        "| dtype | asked otherwise | moved | share |",
        "| --- | --- | ---: | ---: |",
        *(
            f"| {dtype} | {way} | {moved} | {moved / count:.2%} |"
            for dtype, ways in table.items()
            for way, moved in ways.items()
        ),
    ]
    (RESULTS / "flips.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[7:]))


if __name__ == "__main__":
    sys.exit(main())
