"""The model card's tables are carried over in full, and a damaged copy is noticed."""

import copy
import importlib
import pkgutil
from pathlib import Path

import pytest
import yaml

import benchmarks
from eval.errors import DataError
from eval.report.card import card_columns, load_card
from eval.report.tables import build_tables

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "results" / "model_card.yaml"
SHARED = ROOT.parent / "shared" / "model_card_tables.yaml"
CARD = load_card()
CONTENT = yaml.safe_load(FILE.read_text(encoding="utf-8"))


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


@pytest.fixture(scope="module")
def shared():
    if not SHARED.is_file():
        pytest.skip(f"the transcript that the card was copied from is not at {SHARED}")
    return yaml.safe_load(SHARED.read_text(encoding="utf-8"))


def test_every_cell_is_that_of_the_transcript(content, shared):
    """Not a digit, note, blank or hidden row was lost, nor anything around the cells."""
    assert len(shared["tables"]) == len(content["tables"])
    for expected, table in zip(shared["tables"], content["tables"], strict=True):
        for row in expected["rows"]:
            row["is_ours"] = row.pop("ours", False)
        for row in table["rows"]:
            row["is_ours"] = bool(row.pop("checkpoint", None))
        assert expected == table
    assert shared["not_in_the_card"] == content["not_in_the_card"]


def test_columns_are_described_as_in_the_transcript(content, shared):
    """`measure` is what the transcript calls `metric`; keys were only added."""
    assert shared["column_notes"].keys() == content["column_notes"].keys()
    for column, expected in shared["column_notes"].items():
        described = content["column_notes"][column]
        expected["measure"] = expected.pop("metric")
        assert expected == {key: described.get(key) for key in expected}


def test_all_numbers_of_the_card_are_there():
    """155 numbers, two hidden rows, as counted in the card's source."""
    rows = [row for table in CARD.tables for row in table.rows]
    cells = [cell for row in rows for cell in row.cells.values()]
    assert sum(cell.text not in ("-", "") for cell in cells) == 155
    hidden = ["Qwen-VL (4-shot)", "Qwen-VL-Chat (4-shot)"]
    assert hidden == [row.model for row in rows if row.hidden]


def test_the_best_in_bold_are_those_of_the_card():
    """The rule for bold type, used on the card's own rows, marks what the card marks."""
    for expected, table in zip(CARD.tables, build_tables([], CARD, all_tables=True), strict=True):
        marks = {
            (row.model, number)
            for row in expected.rows
            for number, cell in enumerate(row.cells.values())
            if cell.bold
        }
        assert marks == {
            (row.model, number)
            for group in table.groups
            for row in group.rows
            for number, cell in enumerate(row.cells)
            if cell.bold
        }


def test_labels_name_a_column_in_full_where_they_must():
    """Three columns are called val; none of the first table needs its parent's name."""
    labels = {table.id: [column.label for column in table.columns] for table in CARD.tables}
    assert labels["captioning_and_general_vqa"][:3] == ["NoCaps", "Flickr30K", "VQAv2 dev"]
    assert labels["referring_expressions"][3] == "RefCOCO+ val"
    assert labels["touchstone_en"] == ["Score"]


def test_every_column_says_what_fills_it():
    """All 23 columns of the five tables, also those that no installed task serves."""
    columns = card_columns(CARD)
    assert len(columns) == 7 + 5 + 9 + 1 + 1
    assert columns[2] == (
        "Zero-shot Captioning & General VQA",
        "VQAv2 dev",
        ("vqav2_testdev",),
        "vqa_accuracy",
        "server",
    )
    chartqa = next(column for column in columns if column.column == "ChartQA")
    assert chartqa.tasks == ("chartqa_test_human", "chartqa_test_augmented")
    assert [(c.table, c.tasks, c.scored_by) for c in columns[-2:]] == [
        ("Chat Evaluation: English", ("touchstone_en",), "judge"),
        ("Chat Evaluation: Chinese", ("touchstone_cn",), "judge"),
    ]
    served = {c.column for c in columns if c.scored_by == "server"}
    assert served == {"VQAv2 dev", "VizWiz (0-shot)", "DocVQA", "GRIT refexp"}


def test_few_shot_rows_are_known_by_their_names():
    """No other name of the card tells a number of examples."""
    shots = {r.model: r.few_shot for t in CARD.tables for r in t.rows if r.few_shot}
    assert shots == {"Qwen-VL (4-shot)": 4, "Qwen-VL-Chat (4-shot)": 4}


def test_columns_read_metrics_that_their_tasks_have():
    """A column that asked for another name would stop every report of its task."""
    columns = {task: c for table in CARD.tables for c in table.columns for task in c.tasks}
    modules = [f"benchmarks.{module.name}" for module in pkgutil.iter_modules(benchmarks.__path__)]
    tasks = [task for module in modules for task in importlib.import_module(module).TASKS]
    wrong = {
        task.name: list(task.metrics)
        for task in tasks
        if task.name in columns and next(iter(task.metrics)) != columns[task.name].metric
    }
    assert not wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("tables"), r"tables: a list that is not empty expected, None found"),
        (
            lambda c: c["tables"][0]["rows"][0]["cells"].pop("okvqa"),
            r"tables\[0\].rows\[0\].cells: one cell for each of nocaps, .* expected",
        ),
        (
            lambda c: c["tables"][0]["rows"][0]["cells"]["okvqa"].update(value=44.8),
            r"tables\[0\].rows\[0\].cells.okvqa.value: 44.7, as in 'text', expected, 44.8 found",
        ),
        (
            lambda c: c["tables"][1]["rows"][0]["cells"]["textvqa"].update(text="4z.4"),
            r"tables\[1\].rows\[0\].cells.textvqa.text: a number, '-' or '' expected, '4z.4' found",
        ),
        (
            lambda c: c["tables"][0]["header_rows"][1].pop(),
            r"tables\[0\].header_rows: nothing stands above column 9",
        ),
        (
            lambda c: c["tables"][2]["header_rows"][0][2].update(colspan=9),
            r"tables\[2\].header_rows: '.*' sticks out or overlaps another",
        ),
        (
            lambda c: c["tables"][0]["rows"][0]["group"].update(rowspan=12),
            r"tables\[0\].rows\[0\].group.rowspan: 10, the printed rows of .* expected, 12 found",
        ),
        (
            lambda c: c["tables"][0]["rows"][1].update(model="Flamingo-9B"),
            r"tables\[0\].rows: model 'Flamingo-9B' expected once, found again",
        ),
        (
            lambda c: c["tables"][1]["rows"][4].pop("checkpoint"),
            r"tables\[1\].rows: a printed row with a 'checkpoint' expected",
        ),
        (
            lambda c: c["column_notes"]["gqa"].update(task="okvqa_val"),
            r"column_notes: task 'okvqa_val' expected once, found again",
        ),
        (
            lambda c: c["column_notes"]["gqa"].update(decimals="1"),
            r"column_notes.gqa.decimals: a positive integer expected, '1' found",
        ),
        (
            lambda c: c["column_notes"].pop("gqa"),
            r"column_notes.gqa: a mapping expected, None found",
        ),
    ],
)
def test_damage_is_named_by_its_place(content, tmp_path, change, message):
    """An error names the place in the file that is inconsistent."""
    file = tmp_path / "card.yaml"
    change(content)
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"^{file}: {message}"):
        load_card(file)


@pytest.mark.parametrize("text", ["tables: [", "\x00", "!!python/object:os.system {}"])
def test_what_is_no_plain_yaml_is_an_error(tmp_path, text):
    """The file is data: a tag that would build an object is refused like a syntax error."""
    file = tmp_path / "card.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="tables cannot be read"):
        load_card(file)
