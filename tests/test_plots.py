"""Pictures of runs: the report's own numbers, drawn whole, whatever the runs are called."""

import io
import json
import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from PIL import Image
from small import command
from test_gate import draw, make_run, rows_of
from test_leaderboard import BASE, CARD, HOSTILE, board_of, row_of, write_run

from eval.errors import RunError, UsageError
from eval.report.gate import compare_runs
from eval.report.plots import FORMATS, MOST, build_plots
from eval.report.plots.data import flip_data, interval_data, radar_data
from eval.report.plots.draw import LONGEST
from eval.report.scores import load_run
from eval.report.tables import build_tables

SVG = "{http://www.w3.org/2000/svg}"
OURS = "Qwen-VL (Qwen-7B)"


def texts_of(svg):
    """Every text that a reader of the picture sees."""
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def tags_of(svg):
    return {element.tag for element in ElementTree.fromstring(svg).iter()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One of the base checkpoint with most figures, one with few, asked in another way."""
    folder = tmp_path_factory.mktemp("plots")
    most = write_run(folder / "most", {**BASE, "docvqa_test": 0.66})
    few = write_run(folder / "few", {"okvqa_val": 0.5, "gqa_testdev": 0.6}, protocol="chatml")
    return [load_run(most), load_run(few)]


@pytest.fixture(scope="module")
def drawn(runs):
    return build_plots(runs, CARD)


@pytest.fixture(scope="module")
def alone(runs):
    return build_plots(runs[:1], CARD)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two runs with samples: one benchmark fell, one rose, one is the same, one is not in both."""
    folder = tmp_path_factory.mktemp("pair")
    values = draw(200)
    tasks = {"okvqa_val": values, "gqa_testdev": values, "textvqa_val": values}
    base = {task: rows_of(values) for task, values in tasks.items()}
    up, down = [1.0] * 20 + values[20:], [0.0] * 30 + values[30:]
    changed = base | {"gqa_testdev": rows_of(up), "okvqa_val": rows_of(down)}
    first = make_run(folder / "base", base | {"vizwiz_test": rows_of(values)})
    return load_run(first), load_run(make_run(folder / "candidate", changed))


@pytest.fixture(scope="module")
def pictures(pair):
    """Of the two runs with samples, in every format."""
    return {form: build_plots(pair, CARD, None, form).pictures for form in FORMATS}


@pytest.mark.parametrize("form", FORMATS)
def test_the_command_writes_valid_files(pair, pictures, tmp_path, form):
    """Of two runs all three pictures, each a file of its format, and their names on stdout."""
    out = tmp_path / "some" / "plots"
    folders = [run.folder for run in pair]
    done = command("plot", *folders, "--out", out, "--format", form)
    assert (0, "") == (done.returncode, done.stderr)
    files = sorted(set(out.iterdir()) - {out / "plots.json"})
    assert [f"{name}.{form}" for name in ("flips", "intervals", "radar")] == [f.name for f in files]
    assert sorted(done.stdout.split()) == [str(file) for file in files]
    for file in files:
        content = file.read_bytes()
        assert pictures[form][file.stem] == content
        if form == "svg":
            assert f"{SVG}svg" == ElementTree.fromstring(content).tag
        elif form == "png":
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                assert image.width == 1050  # 3.5 inches
                assert image.info["Title"]
        else:
            assert content.startswith(b"%PDF-")
            assert content.rstrip().endswith(b"%%EOF")


def test_of_one_run_there_are_no_flips(alone):
    assert ["radar", "intervals"] == list(alone.pictures)
    assert {} == alone.absent


def test_of_runs_without_samples_it_is_said_why_there_are_no_flips(drawn):
    """A folder of results/ has figures, but no values of samples."""
    assert ["radar", "intervals"] == list(drawn.pictures)
    assert {"flips"} == drawn.absent.keys()


def test_the_radar_has_the_leaderboard_s_scores(runs):
    """Of the runs, and of the card's row; a family without a figure is absent, never 0."""
    radar = radar_data(runs, CARD)
    board = board_of(*(run.folder for run in runs))
    assert [family.title for family in board.families] == list(radar.families)
    assert [OURS, "most"] == [line.name for line in radar.lines]  # nothing of "few" is comparable
    for line in radar.lines:
        scores = row_of(board, line.name).scores
        expected = [scores[f.id].value if f.id in scores else None for f in board.families]
        assert expected == list(line.values)
    assert None in radar.lines[0].values  # Qwen-VL is no chat model
    assert all(value is None or value > 10 for line in radar.lines for value in line.values)


def test_the_intervals_are_the_report_s(runs):
    """Each point is a line of the report's comparison, less the card's figure."""
    points = {(p.run, p.benchmark): p for p in interval_data(runs, CARD)}
    expected = set()
    for table in build_tables(runs, CARD):
        part = table.title.partition(": ")[2]
        for compared in table.compared:
            for column in compared.columns:
                if "-" in (column.score, column.card):
                    continue
                point = points[compared.run, f"{part} {column.column}".strip()]
                expected.add((point.run, point.benchmark))
                low, high = (float(end) for end in column.interval.split(" to "))
                theirs = float(column.card)
                assert float(column.difference) == pytest.approx(point.difference)
                assert (low - theirs, high - theirs) == pytest.approx((point.low, point.high))
                assert column.comparable == point.comparable
                assert compared.model == point.card
    assert expected == points.keys()
    assert 0.0 == points["most", "OK-VQA"].difference
    assert ("few", "TextVQA") not in points
    assert not points["few", "OK-VQA"].comparable


def test_a_run_looks_the_same_in_every_picture(runs):
    """Though some runs are in one picture only."""
    turned = runs[::-1]
    places = {point.run: point.place for point in interval_data(turned, CARD)}
    assert {"few": 0, "most": 1} == places
    (line,) = [line for line in radar_data(turned, CARD).lines if not line.own]
    assert ("most", 1) == (line.name, line.place)


def test_what_is_not_comparable_is_marked(drawn, alone):
    """A dagger stands beside the benchmark, and below what it means; alone it is not there."""
    both = texts_of(drawn.pictures["intervals"])
    assert {"OK-VQA †", "GQA †", "TextVQA"} <= set(both)
    assert any("not comparable" in text for text in both)
    shown = texts_of(alone.pictures["intervals"])
    assert not any("†" in text for text in shown)
    assert "NoCaps" in shown
    assert "VQAv2 dev" not in shown


def test_a_point_without_an_interval_has_none(tmp_path):
    """A server's figure is a point, and not one that is sure."""
    run = load_run(write_run(tmp_path / "run", {"docvqa_test": 0.7}, reach=0))
    (point,) = interval_data([run], CARD)
    assert (None, None) == (point.low, point.high)
    assert point.difference == pytest.approx(4.9)
    assert "intervals" in build_plots([run], CARD).pictures


def test_the_flips_are_the_gate_s(pair, pictures):
    """Worst first, as compare_runs counts them; what cannot be compared is counted, not drawn."""
    flips = flip_data(*pair, CARD)
    comparison = compare_runs(*pair, CARD)
    measured = [each for each in comparison.benchmarks if each.difference is not None]
    expected = [(each.task, each.samples, each.better, each.worse) for each in measured]
    assert expected == [(f.task, f.samples, f.better, f.worse) for f in flips.benchmarks]
    assert ["okvqa_val", "textvqa_val", "gqa_testdev"] == [f.task for f in flips.benchmarks]
    assert flips.benchmarks[0].worse > 0 == flips.benchmarks[0].better
    assert flips.left_out == 1
    shown = texts_of(pictures["svg"]["flips"])
    assert f"{flips.benchmarks[0].worse}" in shown
    assert any("1 not compared" in text for text in shown)
    assert not any("vizwiz" in text for text in shown)


def test_equal_input_gives_equal_bytes(pair, pictures, tmp_path):
    """In another process too, with other hashes, in another place, with a user's own settings."""
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 30\nlines.linewidth: 9\nsvg.fonttype: path\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "MATPLOTLIBRC": str(tmp_path)}
    environment |= {"TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    folders = [str(run.folder) for run in pair]
    code = (
        "import sys, pathlib\n"
        "from eval.report.card import load_card\n"
        "from eval.report.scores import load_run\n"
        "from eval.report.plots import build_plots\n"
        "runs = [load_run(pathlib.Path(run)) for run in sys.argv[2:]]\n"
        "for form in ('svg', 'pdf'):\n"
        "    for name, content in build_plots(runs, load_card(), None, form).pictures.items():\n"
        "        (pathlib.Path(sys.argv[1]) / f'{name}.{form}').write_bytes(content)\n"
        "sys.exit('matplotlib.pyplot' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *folders], check=False, env=environment
    )
    assert 0 == done.returncode, "pyplot keeps every figure, and looks for a display"
    for form in ("svg", "pdf"):
        for name, content in pictures[form].items():
            assert (tmp_path / f"{name}.{form}").read_bytes() == content, f"{name}.{form}"


def test_a_report_without_pictures_does_not_import_matplotlib():
    """It takes half a second, and most commands draw nothing."""
    code = "import sys, eval.report.plots, eval.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("form", ["svg", "png"])
def test_hostile_names_are_only_texts(tmp_path, form):
    """No markup, no formula, nothing that turns the direction, no endless line; all are drawn."""
    names = [*HOSTILE, "$x^2$", "_hidden", r"\frac{$", "שלום עולם"]
    folders = []
    for number, name in enumerate(names):
        folder = write_run(tmp_path / f"run-{number}", {"okvqa_val": 0.5}, name="x")
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(manifest | {"name": name}))
        folders.append(folder)
    assert MOST == len(names)
    plots = build_plots([load_run(folder) for folder in folders], CARD, None, form)
    assert ["radar", "intervals"] == list(plots.pictures)
    assert all(len(content) < 200_000 for content in plots.pictures.values())
    if form != "svg":
        return
    for content in plots.pictures.values():
        assert f"{SVG}script" not in tags_of(content)
        assert f"{SVG}image" not in tags_of(content)
        attributes = {key for e in ElementTree.fromstring(content).iter() for key in e.attrib}
        assert not any(key.startswith("on") for key in attributes)
        shown = texts_of(content)
        assert {"$x^2$", "_hidden", r"\frac{$", "שלום עולם"} <= set(shown)
        assert any("<script>" in text for text in shown)
        assert all(char.isprintable() for text in shown for char in text)
        assert not any("A" * (LONGEST + 1) in text for text in shown)


def test_long_names_that_differ_in_the_middle_stay_apart(tmp_path):
    """Shortened alike, they would be one name for two lines of a legend."""
    start, end = "a" * 30, "b" * 30
    runs = [
        load_run(write_run(tmp_path / middle, {"okvqa_val": 0.5}, name=f"{start}{middle}{end}"))
        for middle in ("one", "two")
    ]
    shown = [text for text in texts_of(build_plots(runs, CARD).pictures["radar"]) if "…" in text]
    assert 2 == len(set(shown)) == len(shown)


def test_another_row_of_the_card_can_stand_beside(runs):
    """By any of its names; where it has no figure, the card's own stands there, and it is said."""
    beside = [line.name for line in radar_data(runs, CARD, "Flamingo-80B").lines]
    assert ["Flamingo-80B", "most"] == beside
    same = [line.name for line in radar_data(runs, CARD, "Qwen-VL-7B").lines]
    assert [OURS, "most"] == same
    chat = [line.name for line in radar_data(runs, CARD, "Qwen-VL-Chat").lines]
    assert ["Qwen-VL-Chat", "most"] == chat
    points = {p.benchmark: p for p in interval_data(runs[:1], CARD, "Flamingo-80B")}
    assert ("Flamingo-80B", OURS) == (points["OK-VQA"].card, points["TextVQA"].card)
    shown = texts_of(build_plots(runs[:1], CARD, "Flamingo-80B").pictures["intervals"])
    assert "Flamingo-80B in OK-VQA" in " ".join(shown)


def test_the_picture_says_in_words_what_it_shows(drawn):
    """For who cannot see it: a title, and all numbers."""
    for name, content in drawn.pictures.items():
        shown = " ".join(ElementTree.fromstring(content).itertext())
        assert "most" in shown
        assert {"radar": "Scores by family", "intervals": "OK-VQA: -8.6"}[name] in shown


def test_what_cannot_be_drawn_is_refused(runs, tmp_path):
    """With what was expected, and nothing is written."""
    other = load_run(write_run(tmp_path / "other", {"okvqa_val": 0.5}, few_shot=3))
    with pytest.raises(RunError, match=r"no figure to draw: radar: .*; intervals: "):
        build_plots([other], CARD)
    with pytest.raises(UsageError, match="--format 'gif': svg, png or pdf expected"):
        build_plots(runs, CARD, form="gif")
    with pytest.raises(UsageError, match="no row of the card is called 'GPT-9'"):
        build_plots(runs, CARD, "GPT-9")
    with pytest.raises(UsageError, match="given twice"):
        build_plots([runs[0], runs[0]], CARD)
    with pytest.raises(UsageError, match=f"give at most {MOST}"):
        build_plots([runs[0]] * (MOST + 1), CARD)
    done = command("plot", runs[0].folder, "--out", tmp_path / "out", "--format", "gif")
    assert done.returncode != 0
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    done = command("plot", runs[0].folder, "--out", tmp_path / "file")
    assert "this is a file; give a folder" in done.stderr
