"""Held-out scenes as data of every benchmark, in their official formats on disk.

`write_demo_data(folder)` makes a data root that the harness's own loaders read. What is drawn comes
from the seed alone. Knows no model.
"""

import hashlib
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from eval.demo.captions import draw_flickr30k, draw_nocaps
from eval.demo.choices import draw_ai2d, draw_scienceqa
from eval.demo.dialogues import draw_touchstone
from eval.demo.open_questions import (
    draw_gqa,
    draw_okvqa,
    draw_okvqa_training,
    draw_vizwiz,
    draw_vqav2,
)
from eval.demo.reading import draw_chartqa, draw_docvqa, draw_ocrvqa, draw_textvqa
from eval.demo.referring import REFERRED, draw_grit, draw_refcoco, draw_refcoco_plus, draw_refcocog
from eval.demo.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS
from eval.demo.writer import SIZES, Writer, write_json
from eval.errors import DataError

__all__ = ["SIZES", "demo_seeds", "write_demo_data"]

VERSION = 3
MANIFEST = "demo.json"
SCENES = 2000  # seeds that one data seed may use
CHECKED = 1000  # the last held-out seeds are what training checks itself on


def write_demo_data(folder: Path, seed: int = 0) -> None:
    """Make the data root `folder`, or leave it as it is where it is complete already.

    seed  another gives other scenes, 0 to 498

    The folder appears whole or not at all: it is written beside and renamed, and its manifest,
    demo.json, is written last. Raises DataError where the folder holds anything that isn't ours.
    """
    folder = Path(folder)
    manifest = {"data": "qwen-vl-eval demo", "version": VERSION, "seed": seed, "samples": SIZES}
    known = _manifest(folder)
    if known is not None and {key: known.get(key) for key in manifest} == manifest:
        return
    if known is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"{folder}: a new or empty folder expected, something found that the demo did not "
            "write. Give another folder: the demo's data must not mix with real ones"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        beside.chmod(0o755)
        _write(Writer(beside, demo_seeds(seed)))
        digests = {
            path.relative_to(beside).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(beside.rglob("*"))
            if path.suffix in (".json", ".jsonl", ".tsv")
        }
        write_json(beside / MANIFEST, {**manifest, "sha256": digests})
        if folder.exists():
            shutil.rmtree(folder)
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def demo_seeds(seed: int) -> range:
    """Seeds of the scenes of one data seed; never one that training draws or checks itself on."""
    first = HELD_OUT_SEEDS[0] + seed * SCENES
    seeds = range(first, first + SCENES)
    if seed < 0 or seeds[-1] >= HELD_OUT_SEEDS[-CHECKED]:
        raise DataError(f"demo data: a seed from 0 to 498 expected, {seed} given")
    assert seeds[0] not in TRAINING_SEEDS
    assert seeds[-1] not in TRAINING_SEEDS
    return seeds


def _write(writer: Writer) -> None:
    """Every benchmark; the order decides which scenes each gets."""
    draw_flickr30k(writer)
    draw_okvqa(writer)
    draw_textvqa(writer)
    draw_scienceqa(writer)
    for split in REFERRED:
        draw_refcoco(writer, split)
    draw_nocaps(writer)
    draw_vqav2(writer)
    draw_okvqa_training(writer)
    draw_vizwiz(writer)
    draw_gqa(writer)
    draw_docvqa(writer)
    draw_chartqa(writer)
    draw_ocrvqa(writer)
    draw_ai2d(writer)
    draw_refcoco_plus(writer)
    draw_refcocog(writer)
    draw_grit(writer)
    draw_touchstone(writer)


def _manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of data that the demo wrote, or None."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(content, dict) and content.get("data") == "qwen-vl-eval demo"
    return content if ours else None
