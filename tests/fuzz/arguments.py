"""Arguments of every command: numbers, names, lines that lack something.

Each table says which values are wrong. A wrong value ends with 2; a right one does what the command
does without it.
"""

from collections.abc import Mapping
from random import Random

from fuzz.cases import Area, Box, Case, Expect, Make, refused, step, works
from fuzz.run_folders import WRITES

BASE = "http://127.0.0.1:9/v1"  # nobody listens; nothing is asked in a dry run
JUDGE = ("judge", "run", "--dry-run", "--allow-partial", "--no-anchors", "--judge", "rules")
SUBMIT = ("submit", "docvqa_test", "run")
RUN = ("run", "okvqa_val", "--model", "demo", "--data", "data", "--out", "out")
CERTIFY = ("certify", "okvqa_val", "--model", "ck", "--data", "data", "--out", "out")
NO_INTEGERS = ("1.5", "", " ", "x", "1e3", "nan", "inf", "0x10", "1,000", "--", "½", "1\n2", "None")
NO_NUMBERS = (
    "",
    "x",
    "1,5",
    "1.5.5",
    "0x1p3",
    "--",
    "½",
    "None",
    "1 2",
    "nan",
    "inf",
    "-inf",
    "1e400",
)
LONG = "x" * 300
DEEP = "a/" * 3000
HUGE = "9" * 30
WRONG: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # option -> command that takes it last, values that are wrong
    "--limit": (RUN, (*NO_INTEGERS, "0", "-1", HUGE)),
    "--few-shot": (RUN, (*NO_INTEGERS, "-1", HUGE)),
    "--seed": (RUN, (*NO_INTEGERS, "-1")),
    "--batch-size": (RUN, (*NO_INTEGERS, "0", "-8", HUGE)),
    "--gpus": (RUN, (*NO_INTEGERS, "0", "-1", HUGE)),
    "--lease": (RUN, (*NO_NUMBERS, "0", "-1")),
    "--memory": (RUN, ("", "0", "x", "-1GiB", "8QiB", "GiB", "nan", "9" * 400, "1e9", "0GiB",
    "８GiB")),
    "--dtype": (RUN, ("", "int8", "float64", "FLOAT32", "bf16,", "None")),
    "--protocol": (RUN, ("", "Published", "chat", "None")),
    "--device": (RUN, ("", "gpu", "cuda:x", "cuda:-1", "CPU:x", "meta", "None")),
    "--backend": (RUN, ("", "vllm", "Shared", "../plain", "None")),
    "--launcher": (RUN, ("", "slurm", "Ray", "torchrun")),
    "--as-published": (RUN, ("", "8", "0x8", "8x0", "8x8x8", "-1x2", "axb", "8X", "9999999x1",
    "nan")),
    "certify --limit": (CERTIFY, (*NO_INTEGERS, "0", "-1", HUGE)),
    "certify --dtype": (CERTIFY, ("", "int8")),
    "--margin": (("compare", "run", "other"), (*NO_NUMBERS, "-1", "-0.0001")),
    "--inconclusive": (("compare", "run", "other", "--gate"), ("", "ok", "Fail", "0", "warn")),
    "--scored": (SUBMIT, (*NO_NUMBERS, "-1", "101", "1e9", "0.651", "65%%", "%")),
    "--format": (("report", "run"), ("", "pdf", "JSON", "text,md", "../md")),
    "plot --format": (("plot", "run", "--out", "plots"), ("", "jpg", "SVG", "gif")),
    "--row": (("report", "run"), ("", "no such row", "Qwen", LONG)),
    "--images": (("browse", "run", "--out", "pages"), ("", "inline", "Copy")),
    "browse --task": (("browse", "run", "--out", "pages"), ("", "no_such_task", "vqav2_val", "*")),
    "--budget": (JUDGE, (*NO_NUMBERS, "-1")),
    "--price": (JUDGE, ("", "30", "30/60/90", "a/b", "-1/2", "1/-2", "nan/1", "inf/1", "1e400/1",
    "/")),
    "--concurrency": (JUDGE, (*NO_INTEGERS, "0", "1001", HUGE)),
    "--timeout": (JUDGE, (*NO_NUMBERS, "0", "-1", "0.01")),
    "--base-url": (JUDGE, ("x", "ftp://h/v1", "http://", "http://[::1", "file:///etc/passwd",
                           "http://127.0.0.1:99999/v1", "http://h:x/v1", "//h/v1")),
    "--parameter": (JUDGE, ("", "x", "=5", "max_tokens", "messages=[]")),
    "judge --task": (JUDGE, ("", "okvqa_val", "no_such_task", "docvqa_test")),
    "score --task": (("score", "--data", "data", "--predictions", "p.json"),
                     ("", "no_such_task", "refcoco", "all", "okvqa", "../x")),
}  # fmt: skip
RIGHT: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # option -> command that takes it last, values that change nothing
    "--margin": (
        ("compare", "run", "other"),
        ("0", "3", "1e3", "100", "0.5"),
    ),
    "--scored": (
        SUBMIT,
        ("65.1", "100", "0.651%", "65.1%"),
    ),
    "--format": (
        ("report", "run"),
        ("text", "md", "html", "latex", "csv", "json"),
    ),
    "--budget": (
        JUDGE,
        ("0.5", "1e3", "100"),
    ),
    "--price": (
        JUDGE,
        ("30/60", "0/0", "0.15/0.6"),
    ),
    "--concurrency": (
        JUDGE,
        ("1", "1000"),
    ),
    "--timeout": (
        JUDGE,
        ("0.1", "60", "1e3"),
    ),
    "--base-url": (
        JUDGE,
        (BASE, "http://localhost:9/v1/", "https://example.invalid/v1"),
    ),
    "--parameter": (
        JUDGE,
        ("max_completion_tokens=64", "temperature=0.5"),
    ),
}
UNNAMED = (
    "--scored",
    "--row",
    "browse --task",
    "judge --task",
    "score --task",
    "--base-url",
    "--protocol",
    "--dtype",
    "certify --dtype",
    "--device",
    "--backend",
)  # what is wrong is the value's own
OPTION_WRITES: Mapping[str, tuple[str, ...]] = {
    "--scored": ("run/docvqa_test/*", "run/.work", "run/.work/*"),
}


def ground(box: Box) -> None:
    """A run, another, and a few data beside them."""
    box.copy("run", "run")
    box.copy("other", "other")
    box.link("four", "data")
    box.write("p.json", "[]")


def _argv(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    extra = ("--price", "30/60") if option == "--budget" else ()
    extra += ("--base-url", BASE) if command[0] == "judge" and option != "--base-url" else ()
    return (*command, *extra, f"{option.rpartition(' ')[2]}={value}")


def wrong_value(box: Box, rng: Random) -> Case:
    """A value that an option does not take."""
    option = rng.choice(list(WRONG))
    command, values = WRONG[option]
    value = rng.choice(values)
    ground(box)
    argv = _argv(command, option, value)
    expect = [refused(option.rpartition(" ")[2])]
    if value == HUGE or option in UNNAMED:
        expect = [refused()]
    writes = ("out", "out/*") if option.startswith("certify") else ()
    return Case(f"{option} {value[:40]!r}", (step(argv, *expect, writes=writes),))


def right_value(box: Box, rng: Random) -> Case:
    option = rng.choice(list(RIGHT))
    command, values = RIGHT[option]
    value = rng.choice(values)
    ground(box)
    writes = OPTION_WRITES.get(option, WRITES.get(command[0], ()))
    return Case(
        f"{option} {value!r}", (step(_argv(command, option, value), works(), writes=writes),)
    )


# Names, and arguments that no command has

BAD_NAMES = ("", " ", "okvqa-val", "OKVQA_VAL", "no_such_task", "okvqa_val,gqa", "*", "../okvqa",
             "okvqa_val ", "\udcff", "Ω", "a\nb", LONG, "--", "okvqa_val\x1b[2J", "None",
             "0")  # fmt: skip
NAMED: Mapping[str, tuple[str, ...]] = {
    "run": ("run", "{}", "--model", "ck", "--data", "data", "--out", "out"),
    "data verify": ("data", "verify", "{}", "--data", "data"),
    "data prepare": ("data", "prepare", "{}", "--data", "data", "--dry-run"),
    "submit": ("submit", "{}", "run"),
    "score": ("score", "--task", "{}", "--data", "data", "--predictions", "p.json"),
    "certify": ("certify", "{}", "--model", "ck", "--data", "data", "--out", "out"),
}
LINES: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    ((), (0, 2)),
    (("--help",), (0,)),
    (("--version",), (0,)),
    (("list",), (0,)),
    (("data", "list"), (0,)),
    (("data",), (0, 2)),
    (("nonsense",), (2,)),
    (("--nonsense",), (2,)),
    (("report",), (2,)),
    (("report", "run", "--nonsense"), (2,)),
    (("report", "--help"), (0,)),
    (("report", "run", "run"), (0, 2)),
    (("compare", "run"), (2,)),
    (("compare", "run", "run"), (2,)),
    (("compare", "run", "run/../run"), (2,)),
    (("compare", "run", "other", "run"), (2,)),
    (("browse",), (2,)),
    (("browse", "run", "run", "--out", "pages"), (0, 2)),
    (("leaderboard",), (2,)),
    (("plot",), (2,)),
    (("score",), (2,)),
    (("score", "run", "--predictions", "p.json"), (2,)),
    (("score", "--predictions", "p.json"), (2,)),
    (("score", "--predictions", "p.json", "--task", "okvqa_val"), (2,)),
    (("submit", "docvqa_test"), (2,)),
    (("submit", "okvqa_val", "run"), (2,)),
    (("submit", "docvqa_val", "run"), (2,)),
    (("submit", "docvqa_test", "run", "--on", "yesterday"), (0, 2)),
    (("run",), (2,)),
    (("run", "okvqa_val"), (2,)),
    (("run", "--data", "data", "--out", "out", "--model", "ck"), (2,)),
    (("run", "okvqa_val", "--data", "data", "--model", "ck"), (2,)),
    (("run", "okvqa_val", "--data", "data", "--model", "", "--out", "out"), (2,)),
    (("run", "okvqa_val", "--data", "data", "--model", "demo", "--out", ""), (2,)),
    (("certify", "okvqa_val"), (2,)),
    (("card",), (2,)),
    (("card", "nonsense", "--data", "data", "--dry-run"), (2,)),
    (("judge",), (2,)),
    (("judge", "run"), (2,)),
    (("data", "verify"), (2,)),
    (("data", "verify", "okvqa_val"), (2,)),
    (("data", "prepare", "okvqa_val"), (2,)),
    (("data", "nonsense"), (2,)),
    (("report", "run", "--debug"), (0,)),
    (("run", "okvqa_val", "--data", "data", "--out", "out", "--model", "ck", "--ray-address",
    "x"), (2,)),
    (("report", "run", "--output"), (2,)),
    (("report", *["run"] * 400), (0, 2)),
)  # fmt: skip


def bad_name(box: Box, rng: Random) -> Case:
    ground(box)
    command, name = rng.choice(list(NAMED)), rng.choice(BAD_NAMES)
    argv = [name if part == "{}" else part for part in NAMED[command]]
    return Case(f"{command}: task {name[:40]!r}", (step(argv, refused()),))


def line(box: Box, rng: Random) -> Case:
    """Command lines that lack something, or have too much."""
    argv, exits = rng.choice(LINES)
    ground(box)
    writes = ("run/docvqa_test/*", "run/.work*", "pages*", "*judge-ledger.jsonl*")
    expect = Expect(exits)
    if "--debug" in argv:
        expect = works()
    return Case(" ".join(argv)[:60], (step(argv, expect, writes=writes),))


MAKERS: tuple[Make, ...] = (wrong_value, line, wrong_value, bad_name, wrong_value, right_value)
AREA = Area("arguments", MAKERS, count=300)
