"""Readers of benchmark files: strict and bounded; every error names file and record.

A reader's module is loaded when its name is first used: whoever only declares tasks, or lists them,
needs neither pydantic nor pyarrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.data.coco import coco_captions
    from eval.data.examples import Examples
    from eval.data.files import read_json, read_jsonl, read_list
    from eval.data.parquet import read_parquet, read_pictures
    from eval.data.paths import safe_path
    from eval.data.pickles import read_pickle
    from eval.data.pins import Pins
    from eval.data.predictions import read_predictions
    from eval.data.records import Record
    from eval.data.samples import converted_source, hub_source, unique, vqa_samples

__all__ = [
    "Examples",
    "Pins",
    "Record",
    "coco_captions",
    "converted_source",
    "hub_source",
    "read_json",
    "read_jsonl",
    "read_list",
    "read_parquet",
    "read_pickle",
    "read_pictures",
    "read_predictions",
    "safe_path",
    "unique",
    "vqa_samples",
]
MODULES = {
    "coco": ("coco_captions",),
    "examples": ("Examples",),
    "files": ("read_json", "read_jsonl", "read_list"),
    "parquet": ("read_parquet", "read_pictures"),
    "paths": ("safe_path",),
    "pickles": ("read_pickle",),
    "pins": ("Pins",),
    "predictions": ("read_predictions",),
    "records": ("Record",),
    "samples": ("converted_source", "hub_source", "unique", "vqa_samples"),
}


def __getattr__(name: str) -> Any:
    for module, names in MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
