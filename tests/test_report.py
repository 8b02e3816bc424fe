"""The card's tables with runs in place: what is shown, what is marked, and how it looks.

golden/report holds the text of two synthetic runs. After a wanted change, write it anew and read
what differs: python tests/test_report.py
"""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from eval.errors import RunError, UsageError
from eval.report.card import load_card
from eval.report.forms.markdown import render_markdown
from eval.report.forms.terminal import render_terminal
from eval.report.scores import RunScores
from eval.report.tables import build_tables
from eval.run.files import Published, Summary, SummaryInterval

GOLDEN = Path(__file__).parent / "golden" / "report"
CARD = load_card()
COLUMNS = {
    task: column for table in CARD.tables for column in table.columns for task in column.tasks
}
PRINTED_FIGURE = re.compile(r"[+-]?\d+\.\d+")
RRC = "Robust Reading Competition, challenge 17, task 1, https://rrc.cvc.uab.es/?ch=17"
HOSTILE = "<script>|**x**|\n\x1b[2J[red]`@you` $x$ \\| [a](http://b.c) www.d.e \u202eevil\u2069"


def task(name, value=0.5, samples=None, size=1000, **more):
    """A summary of a task, complete unless `samples` says less; a value of None is not scored."""
    samples = size if samples is None else samples
    metric = COLUMNS[name].metric if name in COLUMNS else "accuracy"
    fields = {
        "complete": samples == size,
        "protocol": "published",
        "metrics": {} if value is None else {metric: value},
        "signature": f"{name} {metric}={value} | n={samples}",
    }
    if "intervals" in more:
        more["intervals"] = {
            metric: SummaryInterval(*ends) for metric, ends in more["intervals"].items()
        }
    return Summary(name, size, samples, images=max(1, samples - 9), **{**fields, **more})


def run(*tasks, name="qwen-vl.bf16", chat=False):
    chat_format = "chatml" if chat else "raw"
    return RunScores(name, Path("runs") / str(hash(name)), chat_format, {t.task: t for t in tasks})


def synthetic_runs():
    """A base run of all five families, partly finished, a Chat run of a few tasks, and a run with
    few-shot examples.
    """
    answer_types = {
        "yes/no": {"samples": 1500, "vqa_accuracy": 0.7012},
        "number": {"samples": 46, "vqa_accuracy": 0.4},
        "other": {"samples": 3500, "vqa_accuracy": 0.5105},
    }
    base = run(
        task("flickr30k_test", 0.8571),
        task("vqav2_testdev", None, size=107394),
        task("okvqa_val", 0.604, samples=200, size=5046),
        task("scienceqa_test_img", 0.6708, size=2017),
        task("vizwiz_val", 0.3921, size=4319),
        task("textvqa_val", 0.6377, size=5000),
        task("docvqa_test", 0.6511, size=5188, scored_by=RRC),
        task("chartqa_test_human", 0.4992, size=1250),
        task("chartqa_test_augmented", 0.8144, size=1250),
        task("ai2d_test", 0.624, size=3088, faults=("images: 982 expected, 981 found",)),
        task("refcoco_val", 0.8937, size=10834, unreadable=3),
        task("refcoco_testA", 0.9237, size=5657, protocol="chatml"),
        task("refcoco_testB", 0.8533, samples=5056, size=5095, as_published=Published(8, 8)),
        task("grit_refexp_ablation", 0.7812, samples=1900, size=None, complete=False),
    )
    chat = run(
        task("okvqa_val", 0.5663, size=5046, by={"answer_type": answer_types}),
        task("textvqa_val", 0.6149, size=5000),
        task("refcoco+_testA", 0.8862, size=5726),
        task("touchstone_en", 6.4519, size=908),
        name="qwen-vl-chat.bf16",
        chat=True,
    )
    few_shot = run(
        task("okvqa_val", 0.6342, size=5046, few_shot=4),
        task("textvqa_val", 0.6402, size=5000, few_shot=4),
        name="qwen-vl.4-shot",
    )
    return [base, chat, few_shot]


def tables_of(*runs, **options):
    return {table.id: table for table in build_tables(runs, CARD, **options)}


def text_of(tables, width=100):
    file = io.StringIO()
    render_terminal(list(tables), Console(file=file, width=width, force_terminal=False))
    return file.getvalue()


def row_of(table, model):
    (row,) = [row for group in table.groups for row in group.rows if row.model == model]
    return row


def models_of(table):
    return [row.model for group in table.groups for row in group.rows]


def compared_of(table, column, number=0):
    (compared,) = [c for c in table.compared[number].columns if c.column == column]
    return compared


def documents():
    tables = build_tables(synthetic_runs(), CARD, by=True)
    return {
        "terminal_100.txt": text_of(tables, 100),
        "terminal_80.txt": text_of(tables, 80),
        "terminal_40.txt": text_of(tables[-2:], 40),
        "pull_request.md": render_markdown(tables),
        "card_alone.md": render_markdown(build_tables([], CARD, all_tables=True)),
    }


@pytest.mark.parametrize("name", ["terminal_100.txt", "terminal_80.txt", "terminal_40.txt"])
def test_terminal_output_is_as_recorded(name):
    """Layout, marks, notes and the comparison below each table, at three widths."""
    assert (GOLDEN / name).read_text(encoding="utf-8") == documents()[name]


@pytest.mark.parametrize("name", ["pull_request.md", "card_alone.md"])
def test_markdown_is_as_recorded(name):
    """The same for pull requests, and the card without a run."""
    assert (GOLDEN / name).read_text(encoding="utf-8") == documents()[name]


def test_a_run_stands_below_the_row_of_its_checkpoint():
    """Chat below Chat where the table has it, else below the base row, and the reverse."""
    base = run(*map(task, ["okvqa_val", "textvqa_val", "touchstone_en"]), name="one")
    chat = run(*map(task, ["okvqa_val", "textvqa_val", "refcoco_val"]), name="two", chat=True)
    tables = tables_of(base, chat)
    models = models_of(tables["captioning_and_general_vqa"])
    assert models[8:12] == ["Qwen-VL (Qwen-7B)", "one", "Qwen-VL-Chat", "two"]
    assert models_of(tables["text_oriented_vqa"])[4:7] == ["Qwen-VL (Qwen-7B)", "one", "two"]
    assert models_of(tables["referring_expressions"])[7:9] == ["Qwen-VL-7B-Chat", "two"]
    assert models_of(tables["touchstone_en"])[-2:] == ["Qwen-VL-Chat", "one"]
    remarks = [compared.remark for compared in tables["text_oriented_vqa"].compared]
    assert remarks == ["", "the card has no Chat row here"]


def test_the_caller_may_name_the_row():
    """Any model of the card; where a table lacks it, the row of the same checkpoint."""
    both = run(task("okvqa_val"), task("refcoco_val"))
    tables = tables_of(both, row="Qwen-VL-Chat")
    assert tables["captioning_and_general_vqa"].compared[0].model == "Qwen-VL-Chat"
    assert tables["referring_expressions"].compared[0].model == "Qwen-VL-7B-Chat"
    tables = tables_of(both, row="Shikra-7B")
    assert models_of(tables["referring_expressions"])[4:6] == ["Shikra-7B", "qwen-vl.bf16"]
    for unknown in ("Qwen", "-", ""):
        with pytest.raises(UsageError, match=r"no row of the card is called .* Flamingo-9B"):
            tables_of(both, row=unknown)


def test_few_shot_figures_stand_below_the_few_shot_row_of_their_checkpoint():
    """Never in a 0-shot row, nor compared with one, nor competing with one for bold type."""
    zero, four = (
        run(task("okvqa_val"), name="zero"),
        run(task("okvqa_val", 0.9, few_shot=4), name="k"),
    )
    (table,) = tables_of(zero).values()
    assert "Qwen-VL (4-shot)" not in models_of(table)
    (table,) = tables_of(zero, four).values()
    assert models_of(table)[8:12] == ["Qwen-VL (Qwen-7B)", "zero", "Qwen-VL (4-shot)", "k"]
    compared = compared_of(table, "OK-VQA", number=1)
    assert (compared.card, compared.difference) == ("63.6", "+26.4")
    assert (compared.protocol, compared.comparable) == ("published, 4-shot", True)
    assert row_of(table, "Qwen-VL (Qwen-7B)").cells[3].bold
    for model in ("Qwen-VL (4-shot)", "k"):
        assert not any(cell.bold for cell in row_of(table, model).cells)
    chat = run(task("vizwiz_test", 0.44, few_shot=4), name="c", chat=True)
    (table,) = tables_of(chat).values()
    assert models_of(table)[10:12] == ["Qwen-VL-Chat (4-shot)", "c"]
    assert compared_of(table, "VizWiz (0-shot)").difference == "-0.45"


@pytest.mark.parametrize(("name", "few_shot"), [("okvqa_val", 2), ("textvqa_val", 4)])
def test_few_shot_figures_without_a_row_of_their_own_stand_apart(name, few_shot):
    """The card has 4-shot rows in one table, and no 2-shot row."""
    tables = tables_of(run(task(name, few_shot=few_shot)), all_tables=True)
    compared = compared_of(tables["others"], f"{name} vqa_accuracy")
    assert compared.protocol == f"published, {few_shot}-shot"
    assert compared.remark == f"the card has no {few_shot}-shot row here; complete"
    beside = [c for table in tables.values() if table.id != "others" for c in table.compared]
    assert all(column.missing for compared in beside for column in compared.columns)


def test_a_run_of_0_shot_and_4_shot_tasks_fills_two_rows():
    """A folder may hold both; each figure stands where it belongs."""
    mixed = run(task("okvqa_val", 0.6, few_shot=4), task("gqa_testdev", 0.5), name="m")
    (table,) = tables_of(mixed).values()
    below = ["Qwen-VL (Qwen-7B)", "m, 0-shot", "Qwen-VL (4-shot)", "m, 4-shot"]
    assert models_of(table)[8:12] == below
    texts = [[cell.text for cell in row_of(table, model).cells] for model in below[1::2]]
    assert texts == [["-"] * 4 + ["50.0", "-", "-"], ["-"] * 3 + ["60.0"] + ["-"] * 3]


def test_a_named_row_is_taken_by_figures_asked_with_as_many_examples():
    """A 4-shot row for a 0-shot run, or the reverse, is not taken, and the remark says why."""
    zero, four = run(task("okvqa_val"), name="zero"), run(task("okvqa_val", few_shot=4), name="k")
    (table,) = tables_of(zero, four, row="Qwen-VL-Chat (4-shot)").values()
    assert [c.model for c in table.compared] == ["Qwen-VL-Chat", "Qwen-VL-Chat (4-shot)"]
    assert [c.remark for c in table.compared] == [
        "asked 0-shot, so not beside Qwen-VL-Chat (4-shot)",
        "",
    ]
    (table,) = tables_of(zero, four, row="Flamingo-9B").values()
    assert [c.model for c in table.compared] == ["Flamingo-9B", "Qwen-VL (4-shot)"]
    assert table.compared[1].remark == "asked 4-shot, so not beside Flamingo-9B"


def test_only_tables_with_a_figure_are_printed_unless_all_are_wanted():
    """What was answered but is scored elsewhere is no figure, and is still accounted for."""
    assert list(tables_of(run(task("touchstone_cn", 4.0)))) == ["touchstone_cn"]
    assert len(tables_of(run(task("touchstone_cn", 4.0)), all_tables=True)) == 5
    tables = tables_of(run(task("vqav2_testdev", None)))
    assert list(tables) == ["others"]
    remark = "answered, to be scored by its server"
    assert compared_of(tables["others"], "vqav2_testdev").remark == remark
    assert text_of([]) == "No figure to show.\n"
    assert render_markdown([]) == "No figure to show.\n"


def test_a_partial_figure_is_marked_and_never_best():
    """200 good answers are no record."""
    (table,) = tables_of(run(task("okvqa_val", 0.999, samples=200, size=5046))).values()
    cell = row_of(table, "qwen-vl.bf16").cells[3]
    assert (cell.text, cell.marked, cell.bold) == ("99.9", True, False)
    assert row_of(table, "Qwen-VL (Qwen-7B)").cells[3].bold
    compared = compared_of(table, "OK-VQA")
    assert not compared.comparable
    assert compared.remark == "partial: 200 of 5,046 samples"
    assert "99.9†" in text_of([table])
    assert "99.9†" in render_markdown([table])


@pytest.mark.parametrize(
    ("more", "remark"),
    [
        ({"size": None, "samples": 70, "complete": False}, "70 samples, official number unknown"),
        ({"protocol": "chatml"}, "asked by protocol chatml, not the card's"),
        ({"unreadable": 1200, "size": 5046}, "complete; 1,200 unreadable, scored 0"),
        ({"scored_by": "EvalAI (https://evalai.org)"}, "complete; scored by EvalAI"),
        ({"scored_by": "https://a.b/c"}, "complete; scored by https://a.b/c"),
        (
            {"faults": ("images: 9 expected, 8 found", "answers: 5 expected, 4 found")},
            "other data: images: 9 expected, 8 found (2 data issues in all)",
        ),
        (
            {"size": 9, "samples": 8, "faults": ("samples: 9 expected, 8 found",)},
            "partial: 8 of 9 samples",
        ),
        (
            {"size": 8, "samples": 9, "faults": ("samples: 8 expected, 9 found",)},
            "other data: samples: 8 expected, 9 found",
        ),
        (
            {"samples": 960, "as_published": Published(8, 16)},
            "partial: 960 of 1,000 samples; scored as published, 8 processes, batches of 16",
        ),
        (
            {"size": None, "samples": 70, "complete": False, "scored_by": "AI2"},
            "complete; scored by AI2",
        ),
    ],
)
def test_what_a_figure_is_worth_is_said(more, remark):
    """Unknown sizes, other protocols and faulty data are doubts; unreadable answers are counted;
    a server is named, and knows how many samples there are.
    """
    (table,) = tables_of(run(task("okvqa_val", 0.9, **more))).values()
    compared = compared_of(table, "OK-VQA")
    assert compared.remark == remark
    assert compared.comparable is remark.startswith("complete")


def test_a_complete_record_takes_the_bold_type_and_a_tie_shares_it():
    """Best of the generalist rows, by the figures as printed."""
    tables = tables_of(run(task("okvqa_val", 0.5864), name="tie"), run(task("gqa_testdev", 0.6)))
    table = tables["captioning_and_general_vqa"]
    card, tie = row_of(table, "Qwen-VL (Qwen-7B)"), row_of(table, "tie")
    assert (tie.cells[3].text, tie.cells[3].bold, card.cells[3].bold) == ("58.6", True, True)
    assert (row_of(table, "qwen-vl.bf16").cells[4].bold, card.cells[4].bold) == (True, False)
    assert not any(cell.bold for cell in table.groups[1].rows[0].cells)


def test_a_mean_needs_all_of_its_tasks():
    """Half of ChartQA fills no column, and is listed as a half."""
    (table,) = tables_of(run(task("chartqa_test_human", 0.5))).values()
    compared = compared_of(table, "chartqa_test_human relaxed_accuracy")
    assert (table.id, compared.score, compared.card) == ("others", "50.00", "-")
    assert compared.remark == "part of ChartQA; complete"
    both = run(task("chartqa_test_human", 0.5), task("chartqa_test_augmented", 0.8142))
    compared = compared_of(tables_of(both)["text_oriented_vqa"], "ChartQA")
    assert (compared.score, compared.difference, compared.samples) == (
        "65.7",
        "0.0",
        "1,000 + 1,000",
    )


def test_a_summary_that_does_not_fit_the_card_is_an_error():
    """Another metric, or percent for a share, would be printed as a wrong figure."""
    with pytest.raises(RunError, match=r"okvqa_val/summary.json: metric 'vqa_accuracy' expected"):
        tables_of(run(task("okvqa_val", metrics={"anls": 0.5})))
    with pytest.raises(RunError, match=r"a figure from 0 to 1 expected, 58.6 found"):
        tables_of(run(task("okvqa_val", 58.6)))
    tables_of(run(task("nocaps_val", 1.214)))


def test_runs_of_one_name_are_told_apart():
    """Two attempts at one configuration have one name; the same folder twice is a slip."""
    first, second = (
        RunScores("same", Path(folder), "raw", {"gqa_testdev": task("gqa_testdev")})
        for folder in ("old/same", "new/same")
    )
    (table,) = tables_of(first, second).values()
    assert models_of(table)[9:11] == ["same (old/same)", "same (new/same)"]
    with pytest.raises(UsageError, match="old/same: given twice"):
        tables_of(first, first)


def test_figures_by_group_are_printed_only_when_wanted():
    """As the column has them, in the order of the summary; a group's name may be anything."""
    by = {
        "type": {
            "yes/no": {"samples": 600, "vqa_accuracy": 0.7, "vqa_accuracy_official": 0.6},
            HOSTILE: {"samples": 400, "vqa_accuracy": 0.25},
        },
        "domain": {"in": {"samples": 3}},
    }
    given_run = run(task("okvqa_val", by=by), task("vizwiz_val", by=by), name="r")
    assert "by" not in tables_of(given_run)
    parts = tables_of(given_run, by=True)["by"].parts["r"]
    first = parts[0]
    assert (first.task, first.group, first.value) == ("okvqa_val vqa_accuracy", "type", "yes/no")
    assert (first.samples, first.score, first.protocol) == ("600", "70.0", "published")
    assert [part.score for part in parts] == ["70.0", "25.0", "-", "-", "-", "-"]
    lines = text_of([tables_of(given_run, by=True)["by"]]).split("\n")
    assert all(line.isprintable() and cell_len(line) <= 100 for line in lines)
    tables = [table for table in build_tables([given_run], CARD, by=True) if table.id == "by"]
    page = Cells(MarkdownIt("commonmark").enable("table").render(render_markdown(tables)))
    assert set(page.tags) == {"h3", "p", "code", "table", "thead", "tbody", "tr", "th", "td"}
    assert "by" not in tables_of(run(task("okvqa_val")), by=True)


class Cells(HTMLParser):
    """The texts of a page's table cells, and all its tags."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "td":
            self.texts.append("")

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data


def page_of(*runs):
    tables = build_tables(runs, CARD)
    return Cells(MarkdownIt("commonmark").enable("table").render(render_markdown(tables)))


@settings(max_examples=25)
@given(st.text(max_size=120))
@example(HOSTILE)
def test_a_hostile_name_stays_a_name(name):
    """No name breaks a line or a cell, sends a control sequence, or means something to Markdown."""
    hostile = run(task("okvqa_val", 0.5, signature=name or "x"), name=name)
    (table,) = tables_of(hostile).values()
    (label,) = [row.model for group in table.groups for row in group.rows if row.run]
    assert label.isprintable()
    assert len(label) <= 80
    lines = text_of([table]).split("\n")
    assert all(line.isprintable() and cell_len(line) <= 100 for line in lines)
    page, plain = page_of(hostile), page_of(run(task("okvqa_val", 0.5)))
    assert page.tags == plain.tags
    assert len(page.texts) == len(plain.texts)
    assert any(text.split() == f"▸ {label}".split() for text in page.texts)


def test_markup_and_control_sequences_do_not_reach_a_terminal():
    """Rich would colour `[red]`; a terminal would obey an escape."""
    file = io.StringIO()
    tables = build_tables([run(task("okvqa_val", 0.5), name="[red]a\x1b]0;b\x07")], CARD)
    render_terminal(
        tables, Console(file=file, width=100, force_terminal=True, color_system="standard")
    )
    assert "[red]a\N{REPLACEMENT CHARACTER}]0;b\N{REPLACEMENT CHARACTER}" in file.getvalue()
    assert "\x1b]" not in file.getvalue()


def test_a_terminal_shows_the_best_in_bold_and_a_file_with_a_star():
    """Where colour cannot be had, nothing is lost; where only ASCII can, nothing fails."""
    tables = build_tables([run(task("gqa_testdev", 0.6, samples=7))], CARD)
    coloured = io.StringIO()
    render_terminal(
        tables, Console(file=coloured, width=100, force_terminal=True, color_system="standard")
    )
    assert "\x1b[1m85.8" in coloured.getvalue()
    assert "85.8*" in text_of(tables)
    ascii_file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    render_terminal(tables, Console(file=ascii_file, width=100, force_terminal=False))
    ascii_file.seek(0)
    written = ascii_file.read()
    assert "60.0~" in written
    assert "VQAv2^dev" in written


NAMES = sorted({*COLUMNS, "vizwiz_val", "vqav2_val"})
FIGURES = st.lists(
    st.builds(
        lambda name, value, samples, size: task(name, value, min(samples, size), size),
        st.sampled_from(NAMES),
        st.none() | st.floats(0, 1),
        st.integers(1, 10**6),
        st.integers(1, 10**6),
    ),
    unique_by=lambda figures: figures.task,
    max_size=30,
)


@settings(max_examples=40)
@given(FIGURES, st.booleans(), st.integers(10, 140))
def test_no_figure_is_shown_that_was_not_put_in(figures, chat, width):
    """Whatever was run: every printed figure is the card's, the run's rounded, or their difference;
    missing and partial ones are never best; every task is accounted for; and no line is too wide.
    """
    given_run = run(*figures, chat=chat)
    tables = build_tables([given_run], CARD)
    rows = [row for table in CARD.tables for row in table.rows]
    printed = {cell.text for row in rows for cell in row.cells.values()}
    printed |= {number for row in rows for number in PRINTED_FIGURE.findall(row.model)}
    covered = set()
    for table in tables:
        for group in table.groups:
            for cell in (cell for row in group.rows for cell in row.cells):
                assert not (cell.bold and (cell.marked or cell.text in ("-", "")))
        for compared in table.compared[0].columns:
            names = {
                name for name in NAMES if any(s.startswith(f"{name} ") for s in compared.signatures)
            }
            covered |= names
            values = [next(iter(given_run.tasks[name].metrics.values()), None) for name in names]
            if compared.missing:
                assert not names or None in values
                continue
            decimals = len(compared.score.partition(".")[2])
            assert compared.score == f"{sum(values) / len(values) * 100:.{decimals}f}"
            complete = all(given_run.tasks[name].complete for name in names)
            assert compared.comparable is complete
            printed |= {compared.score, compared.difference}
    assert covered == set(given_run.tasks)
    text = text_of(tables, width)
    assert set(PRINTED_FIGURE.findall(text)) <= printed
    if width >= 40:
        assert all(cell_len(line) <= width for line in text.split("\n"))


if __name__ == "__main__":
    for document, written in documents().items():
        (GOLDEN / document).write_text(written, encoding="utf-8")
