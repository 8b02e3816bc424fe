"""Scoring rules: pure functions, one file per rule. Importing them loads neither torch nor Java."""

from eval.metrics.anls import anls, anls_totals
from eval.metrics.box import box_accuracy, box_iou, has_box, parse_box
from eval.metrics.caption import bleu, cider, meteor, ptb_tokenize, rouge_l
from eval.metrics.choice import choice_accuracy, option_tokens, options_text
from eval.metrics.exact import exact_match, gqa_answer, gqa_match
from eval.metrics.grit import box_accuracy_strict, grit_hit, grit_iou, grit_summary
from eval.metrics.relaxed import relaxed_accuracy
from eval.metrics.vqa import vqa_accuracy, vqa_totals

__all__ = [
    "anls",
    "anls_totals",
    "bleu",
    "box_accuracy",
    "box_accuracy_strict",
    "box_iou",
    "choice_accuracy",
    "cider",
    "exact_match",
    "gqa_answer",
    "gqa_match",
    "grit_hit",
    "grit_iou",
    "grit_summary",
    "has_box",
    "meteor",
    "option_tokens",
    "options_text",
    "parse_box",
    "ptb_tokenize",
    "relaxed_accuracy",
    "rouge_l",
    "vqa_accuracy",
    "vqa_totals",
]
