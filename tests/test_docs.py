"""What the documentation says of tasks and commands is what the program says of itself.

After a wanted change: python tests/test_docs.py
"""

import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks as benchmark_modules
from eval import Archive, Build, ByHand, Download, Generate, Mirror, Nucleus, Pictures
from eval.plugins import find_tasks
from eval.report.card import load_card

PAGE = Path(__file__).resolve().parents[1] / "EVALUATION.md"
COMMANDS = (
    "run",
    "card",
    "certify",
    "judge",
    "score",
    "submit",
    "report",
    "compare",
    "leaderboard",
    "plot",
    "browse",
    "list",
    "data list",
    "data prepare",
    "data verify",
    "demo",
)
BLOCK = r"(?s)(<!-- generated: {} -->\n).*?(<!-- end -->)"


def card():
    """Task -> what the card says of its column: "OK-VQA: Qwen-VL 58.6, Qwen-VL-Chat 56.6"."""
    said = {}
    for table in load_card().tables:
        ours = [row for row in table.rows if row.checkpoint]
        for column in table.columns:
            figures = ", ".join(
                f"{row.model} {row.cells[column.key].text or '-'}"
                for row in ours
                if not row.hidden or row.cells[column.key].text not in ("", "-")
            )
            for task in column.tasks:
                said[task] = f"{column.label}: {figures}"
    return said


def tasks():
    lines = ["| task | samples | images | decoding | metrics |", "| --- | --- | --- | --- | --- |"]
    for task in find_tasks(["all", "touchstone_cn"]):
        decode = "likeliest option"
        if isinstance(task.decode, Generate):
            how, least = task.decode, task.decode.min_new_tokens
            kind = f"sampled, top_p {how.top_p:g}" if isinstance(how, Nucleus) else "greedy"
            decode = f"{kind}, {least} to {how.max_new_tokens} new tokens"
        metrics = ", ".join(f"`{name}`" for name in task.metrics)
        server = " (server)" if task.submission and task.submission.alone else ""
        server = " (judge)" if task.judged else server
        counts = " | ".join(f"{n:,}" if n else "?" for n in (task.size, task.expect.images))
        lines.append(f"| `{task.name}` | {counts} | {decode} | {metrics}{server} |")
    return "\n".join(lines) + "\n"


def fields(text):
    """A module's first sentence, and its fields by name: Paper, Split, Protocol, ..."""
    title, *rest = inspect.cleandoc(text).split("\n\n")
    found, name = {}, ""
    for line in "\n".join(rest).splitlines():
        if match := re.match(r"([A-Z][a-z]+)\s{2,}(\S.*)", line):
            name = match[1]
            found[name] = match[2]
        elif line.startswith(" ") and name:
            found[name] += f" {line.strip()}"
        else:
            name = ""
    return " ".join(title.split()), found


def steps(taken):
    """How data are got, in a line a step."""
    for step in taken:
        match step:
            case Download(url, _) | Archive(url):
                yield f"fetched: {url}"
            case ByHand(what, where):
                yield f"by hand: {what}, from {where}"
            case Mirror(repos):
                yield f"or the mirror, with `--mirror`: {' or '.join(repos)}"
            case Pictures():
                yield "fetched: pictures one by one"
            case Build(what):
                yield f"made: {what}"


def modules():
    """Every module of a benchmark."""
    found = [f"benchmarks.{info.name}" for info in pkgutil.iter_modules(benchmark_modules.__path__)]
    return [importlib.import_module(name) for name in [*found, "touchstone.tasks"]]


def benchmarks():
    """A part for each module: what its docstring and its tasks say."""
    said, parts = card(), []
    for module in modules():
        title, protocol = fields(module.__doc__)
        lines = [f"### {title.rstrip('.')}", ""]
        lines += [f"- **{name}** {text}" for name, text in protocol.items()]
        prompts = dict.fromkeys((task.prompt, task.chat) for task in module.TASKS)
        for prompt, chat in prompts:
            lines.append(f"- **Prompt** `{prompt!r}`; in ChatML the user's turn is `{chat!r}`")
        layouts = {}
        for task in module.TASKS:
            for layout in task.layouts:
                files = ", ".join(f"`{source.path}`" for source in layout.sources)
                layouts.setdefault(f"{layout.name} ({files})", None)
        lines.append(f"- **Reads** {'; '.join(layouts)}")
        got = dict.fromkeys(line for task in module.TASKS for line in steps(task.steps))
        shown = dict.fromkeys(line for task in module.TASKS for line in steps(task.train_steps))
        later = dict.fromkeys(line for task in module.TASKS for line in steps(task.later_steps))
        got |= {f"for scoring {line}": None for line in later}
        got |= {f"for few-shot examples {line}": None for line in shown if line not in got}
        lines.append(f"- **Data** {'; '.join(got) or 'by hand'}")
        names = dict.fromkeys(task.benchmark for task in module.TASKS)
        lines.append(f"- **Command** `make eval-{next(iter(names))} CHECKPOINT=... DATA=...`")
        figures = dict.fromkeys(said[task.name] for task in module.TASKS if task.name in said)
        lines.append(f"- **Card** {'; '.join(figures) or 'no column of its own'}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def help_of_commands():
    environment = os.environ | {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    parts = []
    for command in COMMANDS:
        code = (
            f"import sys; sys.argv[1:] = '{command} --help'.split(); from eval.cli import main; "
            "main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        parts.append("\n".join(line.rstrip() for line in done.stdout.strip().splitlines()))
    return "```\n" + "\n\n".join(parts) + "\n```\n"


def generated(page):
    for name, text in (
        ("tasks", tasks()),
        ("benchmarks", benchmarks()),
        ("help", help_of_commands()),
    ):
        page = re.sub(BLOCK.format(name), lambda match, text=text: match[1] + text + match[2], page)
    return page


def test_the_page_is_up_to_date():
    """The task table and the commands' help in EVALUATION.md are the program's own."""
    page = PAGE.read_text(encoding="utf-8")
    assert generated(page) == page, "stale: run python tests/test_docs.py"


def test_links_of_the_documentation_lead_somewhere():
    """Every relative link and every file named in code marks exists."""
    root = PAGE.parent
    for page in (root / "README.md", PAGE):
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (root / target).exists(), f"{page.name}: {target}"
        for target in re.findall(r"`((?:eval|tests|benchmarks|configs|results)/[\w./-]+)`", text):
            assert (root / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_every_benchmark_says_its_protocol(module):
    """Paper, split, protocol, metric and departures stand in the module's first lines."""
    _, found = fields(module.__doc__)
    assert {"Paper", "Split", "Protocol", "Metric", "Departs"} <= found.keys()


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
