"""results/bench/engine.md: what `bench_engine.py` measured, in sentences and tables."""

from collections.abc import Iterable
from statistics import median
from typing import Any

LEAD = """# The engine beside the published procedure

    {command}

Made by this command, like engine.json beside it, which holds every measurement. Both procedures
have the same random weights, in float32, on {cores} cores ({processor}) with {threads} threads;
torch {torch}, transformers {transformers}.

The published procedure is transformers' own `generate` in batches of {batch}, in the order of the
data and padded on the left. Every row opens and encodes its own image, each option of a question
is a row of its own, and a batch ends with its longest row. In its favour, scores are computed only
where a token is chosen.

Questions are invented, but prompt, decoding, order, lengths of questions and answers, and the
number of questions on an image are those of the benchmark. Pictures are JPEGs of 640 x 480 pixels.
"""
MODEL = """## The model

{millions:.1f} million parameters. Vision tower: {layers} layers of {width} on {patches:,} patches.
Language model: {num_hidden_layers} layers of {hidden_size}, {branch:,} per branch, a vocabulary of
{vocab_size:,}. Its parts stand to each other about as in the real model, whose tower has 48 layers
of 1,664 on 1,024 patches, and whose language model has 32 layers of 4,096, 11,008 per branch, and a
vocabulary of 151,936. In GFLOP, and as parts of an image's tower and prefill together:

{parts}
So that answers end as real ones do, the row of `<|endoftext|>` in `lm_head` is that of token
{end[like]} times {end[factor]:g}, chosen once; for boxes it is zero, and they always have full
length. Weights are seeded.
"""
TIMES = """## Times

Seconds, each the median of {pairs} measurements in turn: published, ours, published, ours. The
ratio is the median of the pairs' own, with the smallest and the largest. A token that ends an
answer is counted.
"""
SAME = """## Predictions

How many differ: of the published procedure's from those of the plain engine in the same batches, of
ours from those of the plain engine one at a time, and of the published procedure's from ours.
"""
ARITHMETIC = """## Arithmetic

The least takes each image through the tower once, each token that all questions on an image begin
with once, each token behind them once, each generated token but the last once, scores once for each
token that is chosen, and the last layer behind its attention for those alone. What is performed is
counted by torch, and includes what masks hide. The rate is compared with that of a product of two
float32 matrices of 2048 x 2048 in the same turns,
{product:.0f} GFLOP/s.
"""
GROWTH = """## Questions on an image

Milliseconds an answer takes as more questions of the kind {workload} are asked about an image.
"""
MEMORY = """## Memory

Peak of a process in which ours answers questions of a tiny model, ten on each tiny image.
"""
TARGETS = "## Targets\n"


def table(measured: dict[str, Any]) -> str:
    """The page; what was not measured is left out."""
    model, results = measured["model"], measured["workloads"]
    visual = model["visual"]
    patches = (visual["image_size"] // visual["patch_size"]) ** 2
    products = [pair["product"] for result in results.values() for pair in result["pairs"]]
    blocks = [
        LEAD.format(**measured["machine"], command=measured["command"], batch=measured["batch"]),
        MODEL.format(
            **model,
            **visual,
            patches=patches,
            millions=model["parameters"] / 1e6,
            parts=_grid(
                ("", "tower", "258 tokens of an image", "one token decoded"), _parts(model)
            ),
        ),
        TIMES.format(pairs=measured["pairs"]),
        _grid(
            (
                "questions like",
                "questions",
                "images",
                "tokens of a prompt",
                "of an answer",
                "published",
                "ours",
                "ratio",
                "waited for files",
            ),
            (_times(name, result) for name, result in results.items()),
        ),
        SAME,
        _grid(
            ("questions like", "published, plain's batches", "ours, plain's", "published, ours"),
            (_differing(name, result) for name, result in results.items()),
        ),
        ARITHMETIC.format(product=median(products) / 1e9),
        _grid(
            (
                "questions like",
                "least, GFLOP",
                "ours / least",
                "published / least",
                "decoding's part of ours",
                "ours, GFLOP/s",
                "of the product's rate",
            ),
            (_arithmetic(name, result) for name, result in results.items()),
        ),
    ]
    if growth := measured["growth"]["on_an_image"]:
        rows = (
            (count, f"{row['published_ms']:.0f}", f"{row['ours_ms']:.0f}", f"{row['ratio']:.1f}")
            for count, row in growth.items()
        )
        blocks += [
            GROWTH.format(workload=measured["growth"]["workload"]),
            _grid(("questions on an image", "published", "ours", "ratio"), rows),
        ]
    if memory := measured["memory"]:
        peaks = memory["peak_bytes"].items()
        rows = ((f"{number:,}", f"{size / 2**20:.0f}") for number, size in peaks)
        blocks += [MEMORY, _grid(("questions", "MiB"), rows)]
    rows = (
        (each["what"], each["found"], each["wanted"], "yes" if each["met"] else "no")
        for each in measured["targets"]
    )
    blocks += [TARGETS, _grid(("", "found", "wanted", "met"), rows)]
    return "\n".join(blocks)


def _parts(model: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for name, parts in (("measured here", model["gflop"]), ("real", model["gflop_real"])):
        whole = parts["tower"] + parts["prefill"]
        yield name, *(f"{part:.3g} ({part / whole:.2%})" for part in parts.values())


def _times(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    pairs = result["pairs"]
    ratios = sorted(pair["published_s"] / pair["ours_s"] for pair in pairs)
    length = "ranked"
    if result["answer_tokens"]:
        length = f"{result['answer_tokens']:.1f}, at most {result['longest_answer']}"
    return (
        name,
        str(result["questions"]),
        str(result["images"]),
        f"{result['prompt_tokens']:.0f}",
        length,
        f"{median(pair['published_s'] for pair in pairs):.2f}",
        f"{median(pair['ours_s'] for pair in pairs):.2f}",
        f"{result['ratio']:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        f"{result['waited']:.1%}",
    )


def _differing(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    verified, checked = result["verified"], result["checked"]
    return (
        name,
        f"{verified['differ']} of {verified['asked']}",
        f"{checked['differ']} of {checked['asked']}",
        f"{result['published_differ']} of {result['questions']}",
    )


def _arithmetic(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    flop = result["flop"]
    seconds = median(pair["ours_s"] for pair in result["pairs"])
    return (
        name,
        f"{flop['fewest'] / 1e9:.0f}",
        f"{flop['ours'] / flop['fewest']:.2f}",
        f"{flop['published'] / flop['fewest']:.2f}",
        f"{result['decoded']:.1%}",
        f"{flop['ours'] / seconds / 1e9:.0f}",
        f"{result['rate']:.0%}",
    )


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
