"""What benchmarks read their files with: strict, bounded, and every error names file and record."""

from eval.data.captions import coco_captions
from eval.data.examples import Examples
from eval.data.files import read_json, read_jsonl, read_list
from eval.data.parquet import read_parquet, read_pictures
from eval.data.paths import safe_path
from eval.data.pickles import read_pickle
from eval.data.pins import Pins
from eval.data.predictions import read_predictions
from eval.data.records import Record
from eval.data.samples import converted_source, unique, vqa_samples
from eval.data.verify import Findings, verify

__all__ = [
    "Examples",
    "Findings",
    "Pins",
    "Record",
    "coco_captions",
    "converted_source",
    "read_json",
    "read_jsonl",
    "read_list",
    "read_parquet",
    "read_pickle",
    "read_pictures",
    "read_predictions",
    "safe_path",
    "unique",
    "verify",
    "vqa_samples",
]
