"""What the documentation says of tasks and commands is what the program says of itself.

After a wanted change: python tests/test_docs.py
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from eval import Generate
from eval.registry import find_tasks

PAGE = Path(__file__).resolve().parents[1] / "EVALUATION.md"
COMMANDS = ("run", "score", "list", "report", "demo")
BLOCK = r"(?s)(<!-- generated: {} -->\n).*?(<!-- end -->)"


def tasks():
    lines = ["| task | samples | decoding | metrics |", "| --- | --- | --- | --- |"]
    for task in find_tasks(["all"]):
        size = f"{task.size:,}" if task.size else "?"
        decode = (
            f"greedy, {task.decode.min_new_tokens} to {task.decode.max_new_tokens} new tokens"
            if isinstance(task.decode, Generate)
            else "likeliest option"
        )
        metrics = ", ".join(f"`{name}`" for name in task.metrics)
        lines.append(f"| `{task.name}` | {size} | {decode} | {metrics} |")
    return "\n".join(lines) + "\n"


def help_of_commands():
    environment = os.environ | {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"}
    parts = []
    for command in COMMANDS:
        code = (
            f"import sys; sys.argv[1:] = ['{command}', '--help']; from eval.cli import main; main()"
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
    for name, text in (("tasks", tasks()), ("help", help_of_commands())):
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


def test_configurations_name_known_tasks():
    """Every file of configs/ names a checkpoint, a dtype and tasks that exist."""
    files = sorted((PAGE.parent / "configs").glob("*.toml"))
    assert files
    for file in files:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
        assert settings.keys() == {"model", "dtype", "tasks"}
        assert find_tasks(settings["tasks"])


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
