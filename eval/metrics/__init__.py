"""Scoring rules: pure functions, one file per rule. Importing them loads neither torch nor Java."""

from eval.metrics.box import box_accuracy, box_iou, has_box, parse_box
from eval.metrics.caption import bleu, cider, meteor, ptb_tokenize, rouge_l
from eval.metrics.choice import choice_accuracy, option_tokens, options_text
from eval.metrics.vqa import vqa_accuracy, vqa_totals

__all__ = [
    "bleu",
    "box_accuracy",
    "box_iou",
    "choice_accuracy",
    "cider",
    "has_box",
    "meteor",
    "option_tokens",
    "options_text",
    "parse_box",
    "ptb_tokenize",
    "rouge_l",
    "vqa_accuracy",
    "vqa_totals",
]
