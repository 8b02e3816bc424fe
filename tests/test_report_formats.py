"""The report as HTML, LaTeX, CSV and JSON: the same figures in each; nothing runs, nothing breaks.

golden/report holds documents of synthetic runs. After a wanted change, write them anew and read
what differs: python tests/test_report_formats.py
"""

import csv
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_report import CARD, FIGURES, HOSTILE, run, task
from typer.testing import CliRunner

from eval.cli.main import app
from eval.cli.report import FORMS, print_report
from eval.errors import RunError, UsageError
from eval.report.comparison import REPRODUCED, number
from eval.report.forms.html import escape as escape_html
from eval.report.forms.html import render_html
from eval.report.forms.latex import ESCAPES, PACKAGES, render_latex
from eval.report.forms.latex import escape as escape_latex
from eval.report.forms.records import COLUMNS, guarded, render_csv, render_json
from eval.report.scores import RunScores
from eval.report.tables import build_tables

GOLDEN = Path(__file__).parent / "golden" / "report"
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
COUNTS = re.compile(r"[0-9]+( \+ [0-9]+)*")
NUMERIC = ("figure", "low", "high", "card_figure", "difference")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
TEXTS = (
    HOSTILE,
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "<!-- --> ]]> &lt;b&gt; &amp;",
    r"\input{/etc/passwd} \immediate\write18{ls} ^^5cend",
    r"100% of $x_1^2$ & {a} ~ # \\ [3ex] *",
    r"]{}{}} % & \\",
    "=1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "+1",
    "-2+3",
    "\t=1",
    "\r=1",
    "'=1",
    'a,"b"\r\n=c,d',
    "| a | b |\n|---|---|",
    "\u202e\u2066evil\u2069 \u05d0\u05d1 \u0627\u0628",
    "arara: sh: { command: ls }",
    "!TeX program = pdflatex -shell-escape",
    "千问 --- ,,``quoted'' ?` �",
    "\x00\x1b[2J\x7f\ud800",
    "x" * 100_000,
    "<&" * 50_000,
    "a " * 50_000,
)


def two_runs():
    """A base run that reproduces a figure, misses one, lacks others and has half of ChartQA; and a
    Chat run with figures by group.
    """
    by = {
        "answer_type": {
            "yes/no": {"samples": 1500, "vqa_accuracy": 0.7012},
            "number": {"samples": 46, "vqa_accuracy": 0.4},
        }
    }
    base = run(
        task("okvqa_val", 0.5842, size=5046, intervals={"vqa_accuracy": (0.5711, 0.5973)}),
        task("textvqa_val", 0.6, size=5000, intervals={"vqa_accuracy": (0.59, 0.61)}),
        task("vqav2_testdev", None, size=107394),
        task("flickr30k_test", 0.8571, samples=200),
        task("chartqa_test_human", 0.4992, size=1250),
    )
    chat = run(
        task("okvqa_val", 0.5663, size=5046, by=by),
        task("touchstone_en", 6.4519, size=908),
        task("chartqa_test_human", 0.5),
        task("chartqa_test_augmented", 0.8142),
        name="qwen-vl-chat & <friends>_100%",
        chat=True,
    )
    return [base, chat]


def small_runs():
    """What stands in the shortest table, and beside none."""
    tasks = task("touchstone_en", 6.4519, size=908), task("vizwiz_val", 0.3921, size=4319)
    return [run(*tasks, name="qwen-vl-chat.bf16", chat=True)]


def hostile_runs(text, name="qwen-vl.bf16"):
    """Two runs of one name that say `text` wherever a run says anything."""
    figures = {"samples": 3, "vqa_accuracy": 0.5}
    said = {
        "signature": text,
        "faults": (text, text),
        "doubts": (text,) * 3,
        "scored_by": text,
        "by": {"type": {text: figures, "other": figures}, text: {"value": figures}},
    }
    tasks = task("okvqa_val", 0.5, **said), task("gqa_testdev", 0.5), task("vizwiz_val", **said)
    first = run(*tasks, name=name)
    return [first, RunScores(name, Path("runs/second"), "raw", first.tasks)]


def rendered(runs, **options):
    """Every form of a report, by its name."""
    tables = build_tables(runs, CARD, **options)
    return {
        "html": render_html(tables),
        "latex": render_latex(tables),
        "csv": render_csv(tables, CARD),
        "json": render_json(tables, CARD, runs),
    }


def documents():
    two, small = rendered(two_runs(), by=True), rendered(small_runs(), by=True)
    return {
        "report.html": two["html"],
        "report.tex": two["latex"],
        "report.csv": two["csv"],
        "report.json": small["json"],
    }


class Page(HTMLParser):
    """A page's elements with their attributes, and its tables: a caption and rows of cells."""

    EMPTY = ("meta", "br")

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.tables = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("th", "td"):
            cell = {"part": self.open[-3], "text": "", "in": [], **dict(attrs)}
            self.tables[-1]["rows"][-1].append(cell)
        elif self.cell:
            self.cell["in"].append(tag)
            if tag in ("br", "sup"):
                self.cell["text"] += " "

    @property
    def cell(self):
        """The one that is open."""
        return self.tables[-1]["rows"][-1][-1] if {"th", "td"} & set(self.open) else None

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif self.cell:
            self.cell["text"] += data

    @property
    def tags(self):
        return [tag for tag, _ in self.elements]

    def compared(self):
        """The rows of the comparisons, as texts."""
        for table in self.tables:
            heading, *rows = [[cell["text"] for cell in row] for row in table["rows"]]
            if heading[0] == "Column":
                yield from rows


def grid(rows):
    """The cells of a part of a table by place; each place has one, and none sticks out."""
    width = sum(int(cell.get("colspan", 1)) for cell in rows[0])
    places = {}
    for y, row in enumerate(rows):
        for cell in row:
            x = next(x for x in range(width + 1) if (x, y) not in places)
            for right in range(x, x + int(cell.get("colspan", 1))):
                for down in range(y, y + int(cell.get("rowspan", 1))):
                    assert (right, down) not in places
                    places[right, down] = cell
    assert places.keys() == {(x, y) for x in range(width) for y in range(len(rows))}
    return width, places


TOKEN = re.compile(r"(?s)%[^\n]*\n|\\(?:[A-Za-z]+|.)|[{}&$#^_~]|[^\\%{}&$#^_~]+")
LAYOUT = {
    *(r"\toprule", r"\midrule", r"\bottomrule", r"\cmidrule", r"\multirow", r"\multicolumn"),
    *(r"\shortstack", r"\begin", r"\end", r"\caption", r"\label", r"\centering", r"\par"),
    *(r"\smallskip", r"\footnotesize", r"\textbf", r"\textsuperscript", r"\textwidth"),
    *(r"\textheight", r"\\"),
}
SIGNS = {sign for escape in ESCAPES.values() for sign in re.findall(r"\\(?:[A-Za-z]+|.)", escape)}
BEGUN = re.compile(r"\\(begin|end)\{(\w+)\}")
SPEC = re.compile(r"(?s)\\begin\{tabular\}\{((?:[lcr]|p\{16em\})+)\}(.*)")
RULE = re.compile(r"\\(top|mid|bottom)rule|\\cmidrule\(lr\)\{\d+-\d+\}")
SPANNING = re.compile(r"\s*\\multicolumn\{(\d+)\}")
FORMATS = re.compile(
    r"\\multirow\{\d+\}\{\*\}|\\multicolumn\{\d+\}\{c\}|\\shortstack(\[[lc]\])?|\\textbf"
    r"|\\footnotesize(?=\s)|\\textsuperscript(?=\{\\)"
)
ESCAPED = {escape: sign for sign, escape in ESCAPES.items()}
BACK = "|".join(map(re.escape, sorted(ESCAPED, key=len, reverse=True)))


def unescape_latex(text):
    """What `escape` was given."""
    parts = re.split(rf"({BACK})|([-,'])\{{\}}", text)
    return "".join(ESCAPED.get(part, part) for part in parts if part)


def plain(cell):
    """A LaTeX cell's text."""
    cell = FORMATS.sub("", cell).replace(r"\textsuperscript", " ")
    parts = re.split(rf"({BACK}|\\\\|[{{}}])", cell)
    kept = (ESCAPED.get(part, {r"\\": " ", "{": "", "}": ""}.get(part, part)) for part in parts)
    return " ".join("".join(kept).split())


def latex_tables(source):
    """The rows of each tabular, as cells of source; whatever TeX would object to fails."""
    source = source.replace(r"$\triangleright$~", "▸ ")
    opened = []
    for kind, name in BEGUN.findall(re.sub("(?m)^%.*$", "", source)):
        if kind == "begin":
            opened.append(name)
        else:
            assert name == opened.pop()
    assert not opened
    tables, depth, rows = [], 0, None
    tokens = TOKEN.findall(source)
    assert source == "".join(tokens)
    for place, token in enumerate(tokens):
        if token.startswith("%"):
            assert place == 0 or tokens[place - 1].endswith("\n")
            continue
        assert token not in ("$", "#", "^", "_", "~")
        assert not token.startswith("\\") or token in LAYOUT | SIGNS
        assert token != r"\char" or tokens[place + 1].startswith("34")
        following = "".join(tokens[place : place + 4])
        if following == r"\begin{tabular}":
            rows = [[""]]
        elif following == r"\end{tabular}":
            *rows, last = rows
            assert [r"\bottomrule"] == [cell.strip() for cell in last]
            spec, rows[0][0] = SPEC.match(rows[0][0]).groups()
            tables.append((len(spec.replace("{16em}", "")), rows))
            rows = None
        if rows is not None:
            if token == "&" and depth == 0:
                rows[-1].append("")
            elif token == r"\\" and depth == 0:
                assert not re.match(r"\s*[\[*]", tokens[place + 1])
                rows.append([""])
            else:
                rows[-1][-1] += token
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    for width, table in tables:
        for row in table:
            row[0] = RULE.sub("", row[0])
            spans = [SPANNING.match(cell) for cell in row]
            assert width == sum(int(span[1]) if span else 1 for span in spans)
    return [rows for _, rows in tables]


def compared_in_latex(source):
    """The rows of the comparisons, as texts."""
    for heading, *rows in latex_tables(source):
        if plain(heading[0]) == "Column":
            yield from ([plain(cell) for cell in row] for row in rows)


def rows_of(text):
    """A CSV file's rows, by column."""
    heading, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(heading) == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def compared_in(tables):
    return [
        (table, compared, column)
        for table in tables
        for compared in table.compared
        for column in compared.columns
        if not column.empty
    ]


def texts_of(column):
    """A row of a comparison as people read it."""
    return [
        column.column,
        column.score + "†" * column.cell.marked,
        *(column.interval, column.card, column.difference, column.verdict),
        *(column.samples, column.images, column.protocol, column.remark),
    ]


def printed(cell):
    return f"{cell.text}{'†' * cell.marked} {cell.note}".strip()


def squeezed(texts):
    """As TeX has them: a space is as many."""
    return [" ".join(text.split()) for text in texts]


@pytest.mark.parametrize("name", ["report.html", "report.tex", "report.csv", "report.json"])
def test_a_document_is_as_recorded(name):
    """Layout, marks and every figure."""
    assert (GOLDEN / name).read_bytes() == documents()[name].encode()


def test_equal_runs_give_equal_bytes():
    """No clock, no order of a set."""
    assert rendered(two_runs(), by=True) == rendered(two_runs(), by=True)


LAID_OUT = {"card": [], "two": two_runs(), "hostile": hostile_runs(HOSTILE, name=HOSTILE)}


@pytest.mark.parametrize("runs", LAID_OUT.values(), ids=LAID_OUT)
def test_a_page_has_the_layout_of_the_card(runs):
    """Header rows with the card's spans, superscripts, notes, bold type; runs' rows in place."""
    tables = build_tables(runs, CARD, all_tables=True)
    page = Page(render_html(tables))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert ids == [table.id for table in tables]
    assert len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in page.elements
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in page.elements
    assert all(table["caption"] for table in page.tables)
    drawn = [each["rows"] for each in page.tables if each["caption"].startswith("The model card")]
    for table, rows in zip((table for table in tables if table.groups), drawn, strict=True):
        width, places = grid([row for row in rows if row[0]["part"] == "thead"])
        for x, path in enumerate(table.paths):
            above = {id(places[x, y]): places[x, y] for y in range(len(table.header))}.values()
            assert [header.plain for header in path] == [cell["text"] for cell in above]
            for header, cell in zip(path, above, strict=True):
                assert cell["scope"] == ("colgroup" if header.colspan > 1 else "col")
                assert ("sup" in cell["in"]) == bool(header.superscript)
        body_width, places = grid([row for row in rows if row[0]["part"] == "tbody"])
        assert width == body_width
        labelled = [(group.title, row) for group in table.groups for row in group.rows]
        for y, (title, row) in enumerate(labelled):
            assert not table.grouped or title == places[0, y]["text"]
            model = places[table.grouped, y]
            assert "▸ " * row.run + row.model == model["text"]
            assert ("strong" in model["in"], "bdi" in model["in"]) == (row.bold, row.run)
            for x, cell in enumerate(row.cells, table.grouped + 1):
                shown = places[x, y]
                assert printed(cell) == shown["text"]
                assert ("b" in shown["in"]) == cell.bold
                assert ("small" in shown["in"]) == bool(cell.note)


@pytest.mark.parametrize("runs", LAID_OUT.values(), ids=LAID_OUT)
def test_latex_has_the_layout_of_the_card(runs):
    """The same in LaTeX, where each row has as many columns as its table."""
    tables = build_tables(runs, CARD, all_tables=True)
    source = render_latex(tables)
    assert all(package in source.split("\n\n")[0] for package in PACKAGES)
    drawn = [rows for rows in latex_tables(source) if "Model" in "".join(rows[0][:2])]
    for table, rows in zip((table for table in tables if table.groups), drawn, strict=True):
        header, body = rows[: len(table.header)], rows[len(table.header) :]
        for above, row in zip(table.header, header, strict=True):
            assert [each.plain for each in above] == [text for text in map(plain, row) if text]
        labelled = [
            ([group.title if number == 0 else ""] * table.grouped, row)
            for group in table.groups
            for number, row in enumerate(group.rows)
        ]
        for (label, model), row in zip(labelled, body, strict=True):
            name = "▸ " * model.run + model.model
            expected = [*label, *squeezed([name]), *map(printed, model.cells)]
            assert expected == [plain(cell) for cell in row]
            bold = [r"\textbf" in cell for cell in row[len(label) :]]
            assert [model.bold, *(cell.bold for cell in model.cells)] == bold


@settings(max_examples=20)
@given(FIGURES, st.booleans())
@example([], False)
def test_all_forms_tell_the_same_and_nothing_of_a_missing_figure(figures, chat):
    """Figure, interval, the card's, difference and verdict are one in all forms. Where there is no
    figure none is shown, and it is never called reproduced.
    """
    runs = [run(*figures, chat=chat)]
    tables, forms = build_tables(runs, CARD, all_tables=True), rendered(runs, all_tables=True)
    expected = compared_in(tables)
    assert [texts_of(column) for *_, column in expected] == list(Page(forms["html"]).compared())
    comparisons = [squeezed(texts_of(column)) for *_, column in expected]
    assert comparisons == list(compared_in_latex(forms["latex"]))
    rows, cells = rows_of(forms["csv"]), json.loads(forms["json"])["cells"]
    for (table, compared, column), row, cell in zip(expected, rows, cells, strict=True):
        place = compared.run, table.id, column.column
        for record in (row, cell):
            assert place == (record["run"], record["table"], record["column"])
        ends = column.interval.split(" to ") if " to " in column.interval else ["-", "-"]
        shown = [column.score, *ends, column.card, column.difference]
        numbers = [number(text) for text in shown]
        assert numbers == [number(row[name]) for name in NUMERIC]
        names = ("figure", "low", "high", "card", "difference")
        assert [None if n is None else float(n) for n in numbers] == [cell[n] for n in names]
        assert column.verdict.strip("-") == row["verdict"] == (cell["verdict"] or "")
        assert str(column.comparable).lower() == row["comparable"]
        assert column.comparable is cell["comparable"]
        if column.missing:
            assert [row[name] for name in ("figure", "low", "high", "difference")] == [""] * 4
            assert cell["summaries"] == []
            assert column.verdict != REPRODUCED
            assert not column.comparable
        else:
            values = [each["metrics"][cell["metric"]] for each in cell["summaries"]]
            decimals = len(column.score.partition(".")[2])
            assert column.score == f"{sum(values) / len(values) * 100:.{decimals}f}"
            assert cell["tasks"] == [each["task"] for each in cell["summaries"]]


def test_a_half_finished_mean_shows_nothing_of_its_half():
    """49.92 of ChartQA's first half stands among the others, never under ChartQA."""
    forms = rendered(two_runs()[:1])
    (row,) = (row for row in rows_of(forms["csv"]) if row["column"] == "ChartQA")
    assert (row["figure"], row["verdict"]) == ("", "not run")
    assert row["tasks"] == "chartqa_test_human + chartqa_test_augmented"
    cells = json.loads(forms["json"])["cells"]
    (cell,) = (cell for cell in cells if cell["column"] == "ChartQA")
    assert (cell["figure"], cell["summaries"], cell["samples"]) == (None, [], [])
    (cell,) = (cell for cell in cells if cell["tasks"] == ["chartqa_test_human"])
    assert (cell["table"], cell["figure"], cell["metric"]) == ("others", 49.92, "relaxed_accuracy")


def test_verdicts_are_the_comparisons():
    """The card's figure lies in the interval, or beside it, or there is no whole figure."""
    rows = {row["column"]: row for row in rows_of(rendered(two_runs()[:1])["csv"])}
    okvqa = rows["OK-VQA"]
    assert (okvqa["low"], okvqa["card_figure"], okvqa["high"]) == ("57.1", "58.6", "59.7")
    verdicts = [rows[name]["verdict"] for name in ("OK-VQA", "TextVQA", "Flickr30K", "GQA")]
    assert verdicts == ["reproduced", "outside", "incomplete", "not run"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_hostile_texts_stay_texts(text):
    """In a name, signature, doubt, fault, server or group: no element, attribute, command, cell,
    line or formula comes of it, and no form grows out of bounds or holds what is not printable.
    """
    hostile = rendered(hostile_runs(text, name=text), by=True)
    harmless = rendered(hostile_runs("harmless", name="harmless"), by=True)
    for form in hostile.values():
        assert all(char.isprintable() or char in "\r\n" for char in set(form))
        assert len(form.encode()) < 100_000 + 30 * len(text)
    page, other = Page(hostile["html"]), Page(harmless["html"])
    assert other.tags == page.tags
    assert "script" not in page.tags
    assert [attributes.keys() for _, attributes in other.elements] == [
        attributes.keys() for _, attributes in page.elements
    ]
    assert {name for _, attributes in page.elements for name in attributes} == {
        *("lang", "charset", "http-equiv", "content", "name", "id", "class"),
        *("scope", "colspan", "rowspan", "title"),
    }
    shape = [[len(row) for row in rows] for rows in latex_tables(harmless["latex"])]
    assert shape == [[len(row) for row in rows] for rows in latex_tables(hostile["latex"])]
    assert all(len(line) < 2000 for line in hostile["latex"].split("\n"))
    assert not re.search(r"(?im)^%\s*(arara:|!)", hostile["latex"])
    rows = rows_of(hostile["csv"])
    assert len(rows_of(harmless["csv"])) == len(rows)
    for name, cell in (pair for row in rows for pair in row.items()):
        if name in NUMERIC:
            assert not cell or NUMBER.fullmatch(cell)
        elif name in ("samples", "images"):
            assert not cell or COUNTS.fullmatch(cell)
        else:
            assert not cell.startswith(FORMULA)
    known, read = json.loads(harmless["json"]), json.loads(hostile["json"])
    for part in ("tables", "cells", "parts"):
        assert [list(each) for each in known[part]] == [list(each) for each in read[part]]


ANY = st.text(max_size=80)


@given(ANY)
def test_escaped_html_reads_back(text):
    """And has no sign that ends a text or an attribute."""
    assert text == html.unescape(escape_html(text))
    assert not set("<>\"'") & set(escape_html(text))


@given(ANY.filter(str.isprintable) | st.text("".join(ESCAPES) + "-,'a א千", max_size=30))
@example("[3ex]")
@example("*")
@example(r"--- ,, ''' -{} {[}] \textbar{} \# {\char34}")
def test_escaped_latex_reads_back(text):
    """Whatever is printable, so no two texts look the same; no font joins two signs to one, and no
    command takes the text for its option.
    """
    assert text == unescape_latex(escape_latex(text))
    assert not escape_latex(text).startswith(("[", "*"))
    assert not any(pair in escape_latex(text) for pair in ("--", ",,", "''"))


@given(ANY)
@example("=1")
@example("'=1")
def test_a_guarded_cell_reads_back(text):
    """One apostrophe at its start is ours; a spreadsheet sees no formula."""
    file = io.StringIO(newline="")
    csv.writer(file).writerow([guarded(text), 1])
    ((cell, _),) = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert text == cell.removeprefix("'")
    assert not cell.startswith(FORMULA)


@pytest.fixture
def folder(tmp_path):
    """A run of one task, on disk."""
    summary = {
        "task": "okvqa_val",
        "size": 5046,
        "samples": 5046,
        "images": 5033,
        "complete": True,
        "protocol": "published",
        "metrics": {"vqa_accuracy": 0.58637},
        "intervals": {"vqa_accuracy": {"low": 0.5731, "high": 0.5993}},
        "signature": "okvqa_val vqa_accuracy 58.6",
    }
    file = tmp_path / "qwen-vl.bf16" / "okvqa_val" / "summary.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(orjson.dumps(summary))
    return tmp_path / "qwen-vl.bf16"


@pytest.mark.parametrize("form", FORMS)
def test_a_report_is_written_to_a_file_or_printed(folder, tmp_path, capsys, form):
    """The same bytes either way; a file that was there is replaced as a whole."""
    file = tmp_path / "report"
    file.write_text("before")
    print_report([folder], form=form, output=file)
    assert capsys.readouterr().out == ""
    assert sorted(tmp_path.iterdir()) == [folder, file]
    assert "58.6" in file.read_text(encoding="utf-8")
    if form != "text":  # a terminal may have colours
        print_report([folder], form=form)
        assert file.read_bytes() == capsys.readouterr().out.encode()
    with pytest.raises(RunError, match="report: cannot be written"):
        print_report([folder], form=form, output=tmp_path / "nowhere" / "report")


def test_json_has_the_summarys_own_figures(folder, tmp_path):
    """Unrounded and unscaled, beside the figure as it is printed."""
    file = tmp_path / "report.json"
    arguments = ["report", str(folder), "--format", "json", "--output", str(file)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    cells = json.loads(file.read_bytes())["cells"]
    (cell,) = (cell for cell in cells if cell["figure"] is not None)
    assert (cell["figure"], cell["low"], cell["high"]) == (58.6, 57.3, 59.9)
    assert (cell["verdict"], cell["samples"], cell["images"]) == ("reproduced", [5046], [5033])
    (summary,) = cell["summaries"]
    assert summary["metrics"] == {"vqa_accuracy": 0.58637}
    assert summary["intervals"] == {"vqa_accuracy": {"low": 0.5731, "high": 0.5993}}


@pytest.mark.parametrize("form", ["", "HTML", "xml"])
def test_an_unknown_form_is_an_error_that_names_the_known_ones(folder, form):
    """Before anything is read or written."""
    with pytest.raises(
        UsageError, match=r"--format .*: text, md, html, latex, csv or json expected"
    ):
        print_report([folder / "nowhere"], form=form)


if __name__ == "__main__":
    for document, written in documents().items():
        (GOLDEN / document).write_bytes(written.encode())
