"""The leaderboard's data and files: who ranks where, how surely, what is skipped and escaped.

What a browser makes of them is in test_leaderboard_browser.py.
"""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small import command

from eval.errors import RunError, UsageError
from eval.report.card import load_card
from eval.report.site import build_site
from eval.report.site.board import ALL, OWN, RUN, build_board
from eval.report.site.history import timelines
from eval.report.site.rank import Draws, ScoreInterval
from eval.report.site.runs import find_runs
from eval.report.site.text import file_names, manifest_entries, page_data_script, visible_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
VENDOR = RESULTS.parent / "eval" / "report" / "site" / "vendor"
CARD = load_card()
COLUMNS = {
    task: column for table in CARD.tables for column in table.columns for task in column.tasks
}
BASE = {  # figures of Qwen-VL, as summaries hold them
    "nocaps_val": 1.214,
    "okvqa_val": 0.586,
    "gqa_testdev": 0.593,
    "textvqa_val": 0.638,
    "refcoco_val": 0.8936,
    "touchstone_en": 6.5,
}
HOSTILE = (
    "<script>window.ran=1;alert(1)</script>",
    '"><img src=x onerror="window.ran=1;alert(1)">',
    "'-alert(1)-'</title></textarea><svg onload=window.ran=1>",
    "</script><script>window.ran=1</script>\u2028\u2029<!--",
    "{{ 7*7 }}{% raw %}|**x**| $x^2$ \\input{/etc/passwd} %&#~_{}",
    "\u202eexe.gpj\u2066\u200f\u0000\x1b[2J\ud7ff\ufeff",
    "javascript:alert(1)",
    "A" * 100_000,
)


def write_run(folder, figures, *, name=None, started="", checkpoint="", reach=0.01, **more):
    """A run folder: task -> figure, each with an interval of so much to either side, or none."""
    for task, value in figures.items():
        metric = COLUMNS[task].metric
        summary = {
            "task": task,
            "size": 1000,
            "samples": 1000,
            "images": 900,
            "complete": True,
            "protocol": "published",
            "metrics": {metric: value},
            "signature": f"{task} {metric}={value} | n=1000",
        }
        if reach:
            summary["intervals"] = {metric: {"low": value - reach, "high": value + reach}}
        (folder / task).mkdir(parents=True)
        (folder / task / "summary.json").write_text(json.dumps({**summary, **more}))
    if name or started or checkpoint:
        manifest = {
            "name": name or folder.name,
            "model": {"checkpoint": checkpoint, "digest": "ab"},
        }
        manifest |= {"started": started} if started else {}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def hostile_runs(results):
    """Runs whose names, faults, signatures and manifests are an attacker's."""
    for number, text in enumerate(HOSTILE):
        folder = results / f"run-{number}"
        more = {"faults": [text], "complete": False, "signature": text, "scored_by": text}
        write_run(folder, {"okvqa_val": 0.5, "gqa_testdev": 0.5}, **(more if number % 2 else {}))
        manifest = {
            "name": text,
            "model": {"checkpoint": text, "digest": text, "chat_format": text},
            "started": f"2026-01-0{number + 1}T00:00:00+00:00",
            text: {text: [text, {text: text}]},
            "command": text,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return results


def board_of(*folders):
    return build_board(find_runs(folders).runs, CARD)


def row_of(board, name):
    (row,) = [row for row in board.rows if row.name == name]
    return row


def family_of(board, part):
    (family,) = [family for family in board.families if part in family.title]
    return family


def files_of(site):
    return {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }


class Page(HTMLParser):
    """Tags, attributes and texts, as a parser of HTML sees them."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.texts = set(), [], []
        self.feed(content.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def point(value):
    return ScoreInterval(value, value, value)


def ranks_of(*rows, families=None, at_least=1):
    """Intervals of ranks; figures are points, (figure, reach) or None."""
    figures = [
        [None if f is None else ScoreInterval(f[0], f[0] - f[1], f[0] + f[1]) for f in row]
        for row in rows
    ]
    families = families or [range(len(figures[0]))]
    standings = Draws(figures).ranks(families, at_least)
    return [rank and (rank.low, rank.high) for rank in standings]


def test_figures_far_apart_rank_surely_and_figures_close_together_do_not():
    """10 apart with intervals of 1: one order. 0.1 apart: either may be ahead. A tie is one."""
    assert [(1, 1), (2, 2), (3, 3)] == ranks_of([(70, 1)], [(60, 1)], [(50, 1)])
    assert [(1, 2), (1, 2), (3, 3)] == ranks_of([(60.1, 1)], [(60, 1)], [(50, 1)])
    assert [(1, 2), (1, 2), (3, 3)] == ranks_of([(60, 0)], [(60, 0)], [(50, 0)])


def test_a_model_is_compared_by_the_benchmarks_that_both_have():
    """The first is ahead on the one benchmark that they share, whatever the other's is on another.
    A pair without a common benchmark is undecided, which widens both intervals.
    """
    assert [(1, 1), (2, 2)] == ranks_of([(60, 0), None], [(50, 0), (99, 0)])
    assert [(1, 2), (1, 2)] == ranks_of([(60, 0), None], [None, (50, 0)])
    assert [(1, 2), (2, 3), (1, 3)] == ranks_of([(60, 0), None], [(50, 0), None], [None, (50, 0)])
    assert [(1, 1), None] == ranks_of([(60, 0)], [None])


def test_families_have_equal_weight_and_may_be_needed():
    """Ahead by 3 in a family of one outweighs behind by 2 in each of a family of three."""
    first, second = [(53, 0), *[(50, 0)] * 3], [(50, 0), *[(52, 0)] * 3]
    assert [(2, 2), (1, 1)] == ranks_of(first, second)
    assert [(1, 1), (2, 2)] == ranks_of(first, second, families=[[0], [1, 2, 3]])
    only = [(90, 0), None, None, None]
    assert ranks_of(first, second, only, families=[[0], [1, 2, 3]], at_least=2)[2] is None


@pytest.mark.parametrize("gap", [0.05, 0.2, 1.0])
def test_the_interval_of_a_rank_holds_the_true_rank(gap):
    """Fifteen models of known strength, measured again and again: the best one's interval holds its
    place 19 of 20 times, and so do all of them together, however close they are.
    """
    random = np.random.Generator(np.random.PCG64(7))
    truth = -gap * np.arange(15)
    held = []
    for _ in range(40):
        measured = random.normal(truth, 0.8)
        ranks = ranks_of(*([(value, 1.96 * 0.8)] for value in measured))
        held.append([low <= place <= high for place, (low, high) in enumerate(ranks, 1)])
    assert np.mean(held) >= 0.95
    assert np.mean(held, axis=0)[0] >= 0.95


def test_an_interval_need_not_be_symmetric():
    """An end far above reaches the model above; as far below it does not."""
    above = Draws([[ScoreInterval(50, 49.9, 60)], [point(55)]]).ranks([[0]])
    below = Draws([[ScoreInterval(50, 40, 50.1)], [point(55)]]).ranks([[0]])
    assert [(1, 2), (2, 2)] == [(ranks[0].low, ranks[0].high) for ranks in (above, below)]


@given(st.lists(st.lists(st.none() | st.integers(0, 100), min_size=2, max_size=2), max_size=6))
def test_ranks_are_places(rows):
    """From 1 to as many as rank; the one ahead of all that it can be told from may be first."""
    figures = [[None if f is None else point(float(f)) for f in row] for row in rows]
    for rank in filter(None, Draws(figures).ranks([[0], [1]]) if figures else []):
        assert 1 <= rank.low <= rank.high <= rank.of <= len(rows)
        assert 1 <= rank.middle <= rank.of


def test_the_card_alone_ranks_as_it_prints():
    """Qwen-VL leads in its families; each of the card's own models is one row, specialists none."""
    board = build_board((), CARD)
    own = row_of(board, "Qwen-VL (Qwen-7B)")
    grounding = family_of(board, "Referring")
    assert (own.kind, own.ranks[ALL].low, own.ranks[ALL].high) == (OWN, 1, 1)
    assert own.cells[grounding.benchmarks[0].id].text == "89.36"
    assert ["Qwen-VL (Qwen-7B)", "Qwen-VL-Chat"] == [r.name for r in board.rows if r.kind == OWN]
    specialist = row_of(board, "UNINEXT-H")
    assert not specialist.ranks
    assert specialist.unranked == "not ranked: a model made for one task"
    assert {100.0} == {score.value for score in own.scores.values()}
    assert [7, 5, 9, 2] == [len(family.benchmarks) for family in board.families]


def test_a_run_ranks_beside_the_card_by_what_it_has(tmp_path):
    """Better by far: first for sure. As good as the card: an interval. Its score counts what it
    has, relative to the card's figure.
    """
    better = write_run(tmp_path / "better", {k: 1.1 * v for k, v in BASE.items() if v < 0.9})
    same = write_run(tmp_path / "same", BASE)
    board = board_of(better, same)
    assert (1, 1) == tuple(getattr(row_of(board, "better").ranks[ALL], e) for e in ("low", "high"))
    rank = row_of(board, "same").ranks[ALL]
    assert rank.low <= 2 < rank.high
    vqa = family_of(board, "General VQA").id
    score = row_of(board, "better").scores[vqa]
    assert (score.text, score.counted, score.of) == ("110.0", 2, 7)
    reach = 100 * np.hypot(0.01 / 0.586, 0.01 / 0.593) / 2  # of the mean of two
    assert score.interval == f"{110 - reach:.1f} to {110 + reach:.1f}"
    assert board.rows[0].name == "better"


def test_a_figure_that_is_not_comparable_does_not_rank(tmp_path):
    """200 samples of 1,000, and 4-shot figures: shown, marked, without a rank or a score."""
    partial = write_run(tmp_path / "partial", BASE, samples=200, complete=False)
    shots = write_run(tmp_path / "shots", {"okvqa_val": 0.7, "vizwiz_test": 0.5}, few_shot=4)
    mixed = write_run(tmp_path / "mixed", {"okvqa_val": 0.6})
    write_run(mixed, {"gqa_testdev": 0.6}, few_shot=4)
    board = board_of(partial, shots, mixed)
    row = row_of(board, "partial")
    assert (row.unranked, row.ranks, row.scores) == ("no comparable figure", {}, {})
    cell = next(cell for cell in row.cells.values() if cell.text == "58.6")
    assert (cell.marked, cell.rank, cell.interval) == (True, None, "57.6 to 59.6")
    assert row_of(board, "shots").unranked == "asked 4-shot"
    assert not row_of(board, "shots").ranks
    assert row_of(board, "Qwen-VL (4-shot)").unranked == "asked 4-shot"
    assert {"mixed, 0-shot", "mixed, 4-shot"} <= {row.name for row in board.rows}
    assert "Qwen-VL (4-shot)" not in {row.name for row in board_of(partial).rows}


def test_a_figure_that_has_no_interval_for_a_reason_does_not_rank(tmp_path):
    """It would rank as if certain; the reason stands beside it. A server's score has none."""
    reason = {"vqa_accuracy": "too few images for an interval (4)"}
    write_run(tmp_path / "few", {"okvqa_val": 0.6}, reach=0, no_interval=reason)
    write_run(tmp_path / "server", {"okvqa_val": 0.6}, reach=0)
    board = board_of(tmp_path / "few", tmp_path / "server")
    (cell,) = (cell for cell in row_of(board, "few").cells.values() if cell.text == "60.0")
    assert (cell.marked, cell.rank, cell.score) == (False, None, None)
    assert "too few images for an interval (4)" in cell.note
    assert row_of(board, "server").ranks


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    """Names are the runs' own, folders may be anything."""
    for folder in ("one", "two"):
        write_run(tmp_path / folder, {"okvqa_val": 0.5}, name="same")
    names = [row.name for row in board_of(tmp_path).rows if row.kind == RUN]
    assert sorted(names) == ["same (one)", "same (two)"]


def test_what_is_no_run_is_skipped_and_said(tmp_path):
    """results/ holds the card and a bench too. A run without a score is none yet."""
    results = tmp_path / "results"
    write_run(results / "good", {"okvqa_val": 0.5}, name="good")
    (results / "bench").mkdir()
    (results / "README.md").write_text("# Results")
    (results / ".hidden").mkdir()
    (results / "begun").mkdir()
    (results / "begun" / "manifest.json").write_text("{}")
    listing = find_runs([results])
    assert listing.skipped == (
        ("results/README.md", "a file"),
        ("results/begun", "no task is scored yet"),
        ("results/bench", "no run"),
    )
    done = command("leaderboard", results, "--out", tmp_path / "site")
    assert done.returncode == 0
    assert done.stdout.strip() == str(tmp_path / "site" / "index.html")
    assert "skipped: results/bench: no run" in done.stderr
    assert "results/bench" in (tmp_path / "site" / "index.html").read_text()


def test_the_repository_s_own_results_make_a_site(tmp_path):
    """As `make leaderboard` builds it."""
    page = build_site([RESULTS], tmp_path / "site", CARD)
    content = page.read_text(encoding="utf-8")
    assert "Qwen-VL-Chat" in content
    assert 'href="run/demo.html"' in content
    assert "drawn by the demo" in (tmp_path / "site" / "run" / "demo.html").read_text()


def test_the_same_runs_give_the_same_bytes(tmp_path):
    """No date, no folder of this machine, no order of a file system; nothing left beside."""
    for place in ("a", "b/c"):
        results = tmp_path / place / "results"
        for name in sorted(["x", "y", "z"], reverse=place == "a"):
            write_run(
                results / name, BASE, name=name, started="2026-01-01T00:00:00", checkpoint="m"
            )
    sites = [
        build_site([tmp_path / place / "results"], tmp_path / name, CARD).parent
        for place, name in (("a", "one"), ("b/c", "two"), ("a", "one"))
    ]
    first, second, again = map(files_of, sites)
    assert first == second == again
    assert str(tmp_path).encode() not in b"".join(first.values())
    assert {"a", "b", "one", "two"} == {path.name for path in tmp_path.iterdir()}


def test_only_an_earlier_site_is_replaced(tmp_path):
    """A folder with anything else in it is refused, and left as it was."""
    results = tmp_path / "results"
    write_run(results / "one", {"okvqa_val": 0.5})
    site = tmp_path / "site"
    site.mkdir()
    build_site([results], site, CARD)
    (results / "one").rename(results / "two")
    build_site([results], site, CARD)
    assert (site / "run" / "two.html").is_file()
    assert not (site / "run" / "one.html").exists()
    (site / "notes.txt").write_text("mine")
    before = files_of(site)
    with pytest.raises(UsageError, match=r"'notes.txt' in it is not of an earlier leaderboard"):
        build_site([results], site, CARD)
    with pytest.raises(
        UsageError, match=r"'(run|one|two).* in it is not of an earlier leaderboard"
    ):
        build_site([results], results, CARD)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="this is a file; give a folder"):
        build_site([results], tmp_path / "file", CARD)
    assert before == files_of(site)


def test_a_damaged_run_is_named(tmp_path):
    """And no site is written, nor an earlier one touched."""
    results = tmp_path / "results"
    folder = write_run(results / "one", {"okvqa_val": 0.5})
    site = build_site([results], tmp_path / "site", CARD).parent
    before = files_of(site)
    summary = folder / "okvqa_val" / "summary.json"
    for content, message in (
        ("{", r"one/okvqa_val/summary.json: invalid JSON"),
        (
            summary.read_text().replace('"size": 1000', '"size": 1'),
            r"summary.json: at most 1 sampl",
        ),
        (summary.read_text().replace("0.5", "58.6"), r"summary.json: .*0 to 1 expected|between"),
    ):
        summary.write_text(content)
        with pytest.raises(RunError, match=message):
            build_site([results], site, CARD)
    (folder / "manifest.json").write_text("[]")
    with pytest.raises(RunError, match=r"one/manifest.json: input should be an object"):
        build_site([results], site, CARD)
    with pytest.raises(RunError, match=r"no run with a figure found"):
        build_site([tmp_path / "site"], tmp_path / "other", CARD)
    with pytest.raises(RunError, match=r"nowhere: a run, or a folder of runs expected, none found"):
        build_site([tmp_path / "nowhere"], tmp_path / "other", CARD)
    assert before == files_of(site)
    assert not (tmp_path / "other").exists()


def test_a_run_given_twice_is_refused(tmp_path):
    """By itself and by the folder it lies in."""
    folder = write_run(tmp_path / "results" / "one", {"okvqa_val": 0.5})
    with pytest.raises(UsageError, match="given twice"):
        find_runs([tmp_path / "results", folder])


def test_checkpoints_of_one_model_stand_in_one_history(tmp_path):
    """By the day they were started; few-shot runs apart; without a date in none."""
    runs_made = [
        ("b", "/data/tune/checkpoint-1000", "2026-02-01T00:00:00+00:00"),
        ("a", "/other/tune/checkpoint-500", "2026-01-31T23:30:00-02:00"),
        ("c", "/data/tune.step_1500/", "2026-01-02"),
        ("d", "Qwen/Qwen-VL", "2026-01-02T00:00:00Z"),
        ("e", "Qwen/Qwen-VL", "yesterday"),
        ("f", "", "2026-01-02T00:00:00Z"),
        ("g", "checkpoint-7", "0001-01-01T00:00:00+23:00"),
    ]
    for name, checkpoint, started in runs_made:
        write_run(tmp_path / name, {"okvqa_val": 0.5}, started=started, checkpoint=checkpoint)
    write_run(tmp_path / "h", BASE, started="2026-03-01", checkpoint="Qwen/Qwen-VL", few_shot=4)
    checkpoints = {
        line.model: [point.row.name for point in line.points]
        for line in timelines(board_of(tmp_path))
    }
    assert checkpoints == {
        "Qwen/Qwen-VL": ["d"],
        "Qwen/Qwen-VL, 4-shot": ["h"],
        "tune": ["c", "b", "a"],
    }


def test_hostile_texts_are_only_texts(tmp_path):
    """No tag, attribute, script or style comes from a run, in any page."""
    site = build_site([hostile_runs(tmp_path / "results")], tmp_path / "site", CARD).parent
    plain = tmp_path / "plain"
    for number in range(len(HOSTILE)):
        write_run(plain / f"run-{number}", BASE, name="n", started="2026-01-01", checkpoint="m")
    known = build_site([plain], tmp_path / "known", CARD).parent
    pages = {name: Page(content) for name, content in files_of(site).items() if "html" in name}
    ours = {name: Page(content) for name, content in files_of(known).items() if "html" in name}
    assert pages.keys() == ours.keys()
    tags = set().union(*(page.tags for page in ours.values())) | {"abbr", "details", "summary"}
    names = {name for page in ours.values() for name, _ in page.attributes}
    for name, page in pages.items():
        assert page.tags <= tags, name
        assert {attribute for attribute, _ in page.attributes} <= names
        assert not any("{{" in text and "49" in text for text in page.texts)
        for attribute, value in page.attributes:
            if attribute in ("href", "src"):
                assert re.fullmatch(r"(\.\./)?[A-Za-z0-9_./+-]*(#\w+)?|data:,", value), value
        hidden = "\u202e\u2066\u200f\u0000\x1b\ufeff"
        assert not set(hidden) & set("".join(page.texts)), name
    assert max(
        map(len, (content for name, content in files_of(site).items() if "html" in name))
    ) < (1_000_000)


def test_data_cannot_break_out_of_their_script():
    """No markup, no line separator, and what comes back is what went in."""
    text = "".join(HOSTILE)
    content = page_data_script("x", {"a": text}).decode()
    assert not set("<>&\u2028\u2029'") & set(content)
    written = content.removeprefix("window.x = ").removesuffix(";\n")
    assert {"a": text} == json.loads(written)


@given(st.lists(st.text(max_size=90)))
def test_file_names_are_safe_and_unique(names):
    """Whatever folders are called; also on disks that do not tell capitals from small letters."""
    safe = file_names(names)
    assert len(names) == len({name.casefold() for name in safe})
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}", name) for name in safe)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_shown_text_hides_nothing(text):
    """Every character is printable or a line's end; a printable text stays as it is."""
    shown = visible_text(text)
    assert all(char.isprintable() or char == "\n" for char in shown)
    if text.isprintable():
        assert text == shown


def test_a_manifest_without_end_is_shown_in_part():
    """Deep, wide and long values are cut, and how much is left out is said."""
    deep = {}
    for _ in range(900):
        deep = {"a": deep, "b": [deep]}
    wide = {str(number): 1 for number in range(5000)}
    fields = {
        e.key: e
        for e in manifest_entries({"deep": deep, "wide": wide, "long": "x" * 5000, "no": []})
    }
    assert (len(fields["wide"].entries), fields["wide"].more, fields["wide"].folded) == (
        200,
        4800,
        True,
    )
    assert fields["long"].text.endswith("… (5,000 characters in all)")
    assert fields["no"].text == "(none)"
    levels, entry = 1, fields["deep"]
    while entry.entries:
        levels, entry = levels + 1, entry.entries[0]
    assert (levels, entry.text) == (6, "(2 values, in the manifest itself)")


def test_libraries_are_the_registry_s_own():
    """Not a byte of them is changed, and together they are small."""
    listed = [line.split() for line in (VENDOR / "SHA256SUMS").read_text().splitlines()]
    files = {path: hashlib.sha256((VENDOR / path).read_bytes()).hexdigest() for _, path in listed}
    assert {path: digest for digest, path in listed} == files
    there = {p.relative_to(VENDOR).as_posix() for p in VENDOR.rglob("*/*") if p.is_file()}
    assert there == files.keys()
    assert sum((VENDOR / path).stat().st_size for path in there) < 1_000_000


def test_every_asset_lies_in_the_site_with_its_licence(tmp_path):
    """No page names a file that is not there, nor an address; libraries bring their licences."""
    results = tmp_path / "results"
    write_run(results / "one", BASE, name="one", started="2026-01-01", checkpoint="m")
    site = build_site([results], tmp_path / "site", CARD).parent
    for page in site.rglob("*.html"):
        for attribute, value in Page(page.read_bytes()).attributes:
            if attribute in ("href", "src") and not value.startswith(("#", "data:")):
                assert (page.parent / value.partition("#")[0]).is_file(), f"{page.name}: {value}"
    for library in (site / "vendor").iterdir():
        assert any(file.name.startswith("LICENSE") for file in library.iterdir())
    own = [file for file in site.rglob("*") if file.is_file() and "vendor" not in file.parts]
    assert not [file for file in own if re.search(rb"https?://", file.read_bytes())]
