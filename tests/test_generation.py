"""What the generation code answers is recorded; other answers need another version of it.

An answer from an earlier run is only reused where the code would answer the same, and that is told
by eval.engine.plain.GENERATION alone. After a wanted change of answers: raise it, then
python tests/test_generation.py
"""

import json
import sys
import tempfile
from itertools import islice
from pathlib import Path

import pytest

from eval.demo import bundled_checkpoint
from eval.demo.stand_ins import draw_demo
from eval.engine.plain import GENERATION
from eval.engine.shared import open_backend
from eval.plugins import find_tasks
from eval.run.requests import requests
from eval.run.spec import Spec

RECORDED = Path(__file__).parent / "golden" / "generation.json"
OF_A_TASK = 3
CHATML = ("okvqa_val", "scienceqa_test_img")  # asked in a dialogue too


def answers(data: Path, dtype: str) -> dict[str, list]:
    """Text and tokens of a few questions of each task, by protocol and request."""
    asked = {}
    for task in find_tasks(["all"]):
        for protocol in ("published", "chatml") if task.name in CHATML else ("published",):
            for _, request in islice(requests(task, data, Spec(protocol=protocol)), OF_A_TASK):
                asked.setdefault(protocol, []).append(request)
    found = {}
    for protocol, questions in asked.items():
        engine = open_backend(str(bundled_checkpoint()), image_root=data, dtype=dtype)
        for answer in engine.answer(questions):
            assert not answer.error
            found[f"{protocol}: {answer.id}"] = [answer.text, list(answer.tokens)]
    return dict(sorted(found.items()))


@pytest.mark.slow
def test_other_answers_need_another_version(tmp_path):
    """Equal answers under the same version; else what reuses old ones must be told."""
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    draw_demo(tmp_path)
    found = answers(tmp_path, "float32")
    moved = {name for name, answer in recorded["answers"].items() if found.get(name) != answer}
    if moved:
        raised = "then" if GENERATION == recorded["generation"] else "it is raised already:"
        pytest.fail(
            f"{len(moved)} recorded answers have changed, such as {min(moved)}. If that is wanted, "
            f"raise GENERATION in eval/engine/plain.py, {raised} python {Path(__file__).name}"
        )
    assert GENERATION == recorded["generation"], f"record again: python {Path(__file__).name}"


def record() -> None:
    """Write the file again. Refuses other answers under the version that is recorded."""
    with tempfile.TemporaryDirectory() as folder:
        draw_demo(Path(folder))
        exact, rounded = (answers(Path(folder), dtype) for dtype in ("float32", "bfloat16"))
    # only what half precision does not move: another processor will not move it either
    kept = {name: answer for name, answer in exact.items() if rounded[name] == answer}
    if RECORDED.exists():
        before = json.loads(RECORDED.read_text(encoding="utf-8"))
        same = all(exact.get(name) == answer for name, answer in before["answers"].items())
        if not same and before["generation"] == GENERATION:
            sys.exit("answers have changed: raise GENERATION in eval/engine/plain.py first")
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(answer, ensure_ascii=False)}"
        for name, answer in kept.items()
    )
    text = f'{{"generation": {GENERATION}, "answers": {{\n{lines}\n}}}}\n'
    RECORDED.write_text(text, encoding="utf-8")
    print(f"{len(kept)} of {len(exact)} answers recorded")


if __name__ == "__main__":
    record()
