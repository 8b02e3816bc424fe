"""The signature: one line that a score can be quoted with, and that identifies what decided it."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from eval import __version__
from eval.api import Generate, Nucleus
from eval.data.declare import Task
from eval.run.journal import model_identity
from eval.run.spec import Spec, spec_digest


def signature(task: Task, summary: Mapping[str, Any], facts: Mapping[str, str], spec: Spec) -> str:
    """One line that a score can be quoted with: value, counts, and all that decides it.

    decode     most and least tokens, and where it samples its top_p and its seed
    asked      see eval.run.spec.spec_digest
    data       digest of the benchmark's files
    questions  digest of all requests: prompts with their options, decoding, pictures' bytes
    ckpt, dtype, device, engine, gen, batch  of the model; see eval.run.journal.model_identity
    """
    scores = " ".join(f"{name}={value:.6f}" for name, value in summary["metrics"].items())
    decode = "rank"
    if isinstance(task.decode, Generate):
        how = spec.decode(task) or task.decode
        decode = f"greedy:{how.max_new_tokens}/{how.min_new_tokens}"
        if isinstance(how, Nucleus):
            decode = f"nucleus:{how.max_new_tokens}/{how.min_new_tokens}/{how.top_p:g}/{how.seed}"
    published = summary.get("as_published")
    every = {
        "n": summary["samples"],
        "of": summary["size"] or "?",
        "images": summary["images"],
        "protocol": summary["protocol"],
        **({"few_shot": summary["few_shot"], "seed": spec.seed} if summary["few_shot"] else {}),
        **({"faults": len(summary["faults"])} if summary["faults"] else {}),
        **({"failed": summary["failed"]} if summary["failed"] else {}),
        **_judged(summary.get("judge")),
        "decode": decode,
        **({"as_published": "{processes}x{batch_size}".format(**published)} if published else {}),
        **facts,
    }
    fields = " ".join(f"{name}={value}" for name, value in every.items())
    return f"{task.name} {scores or 'not scored'} | {fields}"


def _judged(judge: Mapping[str, Any] | None) -> dict[str, str]:
    """Who judged, the digest of its prompt, its parameters, and which scores counted."""
    if judge is None:
        return {}
    reported = ",".join(judge["reported"]) or judge["model"]
    fields = {"judge": reported.replace(" ", "_"), "prompt": judge["prompt"]["digest"][:12]}
    if parameters := judge.get("parameters"):
        fields["parameters"] = orjson.dumps(parameters, option=orjson.OPT_SORT_KEYS).decode()
    if judge.get("as_published"):
        fields["scale"] = "as_published"
    return {name: value.replace(" ", "_") for name, value in fields.items()}


def run_facts(
    task: Task, entry: Mapping[str, Any], model: Mapping[str, Any], sources: Mapping[str, str]
) -> dict[str, str]:
    """What a run's manifest adds to a signature.

    entry    of the task
    sources  digests of the benchmark's files, by path
    """
    known = {name: "?" if value is None else value for name, value in model_identity(model).items()}
    facts = {
        "asked": spec_digest(task, entry),
        "data": _short(sources),
        "questions": "?",  # known when the last answer is read
        "ckpt": str(known["digest"])[:12],
        "dtype": str(known["dtype"]),
        "device": str(known["device"]),
        "engine": str(known["engine"]),
        "gen": str(known["generation"]),
        "batch": str(known["batch_size"]),
        "eval": __version__,
    }
    if "answers" in model:  # a file's: how its answers were obtained is not known
        facts |= {"protocol": "?", "decode": "?", "asked": "?"}
    return facts


def file_facts(sources: Mapping[str, str], answers: str) -> dict[str, str]:
    """What is known of a file of answers, of the sha256 `answers`; see run_facts."""
    return {
        "protocol": "?",
        "decode": "?",
        "asked": "?",
        "answers": answers[:12],
        "data": _short(sources),
        "eval": __version__,
    }


def _short(sources: Mapping[str, str]) -> str:
    """A short digest of a task's files, the same whatever their order."""
    return hashlib.sha256("".join(sorted(sources.values())).encode()).hexdigest()[:12]
