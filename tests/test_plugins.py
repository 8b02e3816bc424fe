"""Plug-ins: packages offer tasks and back ends through entry points, and only through them."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eval import plugins
from eval.errors import PluginError, UsageError
from eval.judging.task import JudgedTask

ROOT = Path(__file__).resolve().parents[1]

TASK = """
from eval import Corpus, Generate, Layout, Rank, Sample, Source, Task

def read(root):
    yield Sample("1", {"image": "x.png"}, reference="x")

def task(name, **changes):
    fields = {
        "size": 1,
        "layouts": (Layout((Source("x.json"),), read),),
        "prompt": "<img>{image}</img>What?",
        "decode": Generate(5),
        "metrics": {"accuracy": lambda prediction, reference: 1.0},
    }
    return Task(name, **{**fields, **changes})
"""


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Makes a distribution findable: its modules, and the metadata that an installer leaves."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(distribution, modules, **groups):
        for path, content in modules.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        info = tmp_path / f"{distribution.replace('-', '_')}-0.1.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n"
        (info / "METADATA").write_text(head)
        lines = [
            f"[eval.{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(tmp_path)  # once more: it drops what importlib remembers

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def names(*asked):
    return [task.name for task in plugins.find_tasks(asked)]


def test_a_benchmarks_name_stands_for_its_tasks_in_order():
    """Each task comes once, in the order asked, and a benchmark's in the order declared."""
    refcoco = ["refcoco_val", "refcoco_testA", "refcoco_testB"]
    assert ["okvqa_val", *refcoco] == names("okvqa_val", "refcoco", "refcoco_testA")
    everything = names("all")
    assert set(everything) >= {"flickr30k_test", "textvqa_val", "scienceqa_test_img", *refcoco}
    assert len(everything) == len(set(everything))
    offered = plugins.tasks()
    assert everything == [name for name in offered if not offered[name].task.by_name]
    assert "benchmarks.okvqa of qwen-vl-eval" in plugins.tasks()["okvqa_val"].origin


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ("okvqa_vall", "okvqa_val"),
        ("ref_coco", "refcoco"),
        ("scienceqa_test", "scienceqa_test_img"),
    ],
)
def test_a_misspelt_task_is_a_usage_error_with_the_nearest_name(asked, nearest):
    """The user learns the right name, not a traceback."""
    with pytest.raises(UsageError, match=f"{asked!r}; did you mean {nearest!r}. known: see"):
        names("okvqa_val", asked)


def test_a_misspelt_back_end_is_a_usage_error_with_the_nearest_name():
    """And the names that there are."""
    with pytest.raises(UsageError, match=r"'replai'; did you mean 'replay'\? known: .*replay"):
        plugins.backend("replai")


def test_finding_tasks_loads_no_torch():
    """Listing tasks must start fast, and work where no torch is."""
    code = (
        "import sys; from eval.plugins import find_tasks; find_tasks(['all']);"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_source_folder_that_is_not_installed_says_so(tmp_path):
    """Entry points come with an installation; without one nothing would be found, silently."""
    for each in Path(pytest.__file__).parents[1].iterdir():  # what else is installed
        if "qwen_vl_eval" not in each.name:
            (tmp_path / each.name).symlink_to(each)
    code = f"""
        import sys
        sys.path += [{str(ROOT)!r}, {str(tmp_path)!r}]
        from eval import plugins
        from eval.errors import UsageError
        for look_up in (plugins.tasks, lambda: plugins.backend("plain")):
            try:
                look_up()
            except UsageError as error:
                assert "qwen-vl-eval is not installed" in str(error), error
                assert "pip install -e ." in str(error), error
            else:
                sys.exit("no error")
    """
    isolated = [sys.executable, "-I", "-S"]  # without site-packages
    subprocess.run([*isolated, "-c", textwrap.dedent(code)], check=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """tests/plugin, built and installed by pip as a stranger would, into a folder of its own.

    Offline: setuptools, which builds it, is there because torch depends on it.
    """
    pytest.importorskip("pip", reason="a virtual environment without pip cannot install the plugin")
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "site"
    shutil.copytree(Path(__file__).parent / "plugin", source)  # building writes beside the source
    quiet = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--no-build-isolation"]
    done = subprocess.run([*command, "--target", target, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_package_adds_a_task_and_a_back_end(site, tmp_path):
    """From pip to a scored answer, without a line of ours that names the package."""
    (tmp_path / "shapes").mkdir()
    rows = (
        '{"id": 1, "image": "1.png", "shape": "a"}',
        '{"id": 2, "image": "2.png", "shape": "b"}',
    )
    (tmp_path / "shapes" / "test.jsonl").write_text("\n".join(rows))
    code = f"""
        import sys
        sys.path.insert(0, {str(site)!r})
        from pathlib import Path
        from eval import plugins
        from eval.run.requests import render_request
        root = Path({str(tmp_path)!r})
        (task,) = plugins.find_tasks(["shapes"])
        assert "my_lab.benchmarks.shapes of my-lab 0.1" == plugins.tasks()[task.name].origin
        assert task in plugins.find_tasks(["all"]) and plugins.find_tasks(["okvqa_val"])
        samples = list(task.layout(root).read(root))
        backend = plugins.backend("parrot")("polly", image_root=root, device="cpu")
        answers = list(backend.answer(render_request(task, sample) for sample in samples))
        assert "shapes_test/1" == answers[0].id
        scored = [task.metrics["accuracy"](a.text, s.reference) for a, s in zip(answers, samples)]
        assert [1.0, 0.0] == scored, scored
    """
    checked = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    subprocess.run(checked, check=True)


def test_a_broken_package_stops_only_those_who_ask_for_its_tasks(offer):
    """Its own error is the cause, and everybody else's tasks are found."""
    modules = {
        "lab_broken/__init__.py": "",
        "lab_broken/good.py": TASK + "TASKS = (task('good_test'),)",
        "lab_broken/bad.py": "import no_such_module_at_all",
        "lab_broken/exits.py": "raise SystemExit(3)",
        "lab_broken/_private.py": "raise RuntimeError('never imported')",
        "lab_broken/helpers.py": "",
    }
    offer("lab-broken", modules, tasks={"lab": "lab_broken"})
    expected = ["okvqa_val", "good_test"]
    assert expected == names("okvqa_val", "good")
    assert "good_test" in plugins.tasks()
    for asked in ("bad_test", "all"):
        with pytest.raises(PluginError, match=r"lab_broken\.bad of lab-broken 0\.1") as error:
            names(asked)
        causes, cause = [], error.value
        while cause:
            causes.append(type(cause))
            cause = cause.__cause__
        assert ModuleNotFoundError in causes
    with pytest.raises(PluginError, match=r"'okvqa_vall'; did you mean 'okvqa_val'\?"):
        names("okvqa_vall")


def test_a_clash_of_names_names_both_packages(offer):
    """Neither of the two is preferred in silence; all other tasks can be run."""
    for lab in ("one", "two"):
        modules = {f"lab_{lab}.py": f"{TASK}\nTASKS = task('clash_test'), task('{lab}_test')"}
        offer(
            f"lab-{lab}", modules, tasks={"lab": f"lab_{lab}"}, backends={"same": f"lab_{lab}:task"}
        )
    expected = ["one_test", "two_test"]
    assert expected == names("one", "two_test")
    for asked in ("clash_test", "clash", "all"):
        with pytest.raises(PluginError, match=r"lab_one of lab-one 0.1 and by lab_two of lab-two"):
            names(asked)
    with pytest.raises(
        PluginError, match=r"'same' is offered twice.* lab-one 0.1 and by .*lab-two"
    ):
        plugins.backend("same")


def test_a_stranger_cannot_replace_one_of_our_tasks(offer):
    """A figure must come from the benchmark that its name promises."""
    offer(
        "lab-thief",
        {"lab_thief.py": TASK + "TASKS = (task('okvqa_val'),)"},
        tasks={"x": "lab_thief"},
    )
    with pytest.raises(
        PluginError, match=r"by lab_thief of lab-thief .*by benchmarks\.okvqa of qwen"
    ):
        names("okvqa_val")


def test_a_task_by_name_is_found_by_its_own_name_alone(offer):
    """Whoever asks for a benchmark, or all, is not stopped by data that are published nowhere."""
    tasks = "task('sketch_val'), task('sketch_test', by_name=True), task('hidden_x', by_name=True)"
    offer("lab-named", {"lab_named.py": f"{TASK}\nTASKS = {tasks}"}, tasks={"x": "lab_named"})
    assert ["sketch_val"] == names("sketch")
    assert ["sketch_test", "sketch_val"] == names("sketch_test", "sketch")
    assert {"sketch_val", "sketch_test", "hidden_x"} & set(names("all")) == {"sketch_val"}
    assert {"sketch_test", "hidden_x"} <= plugins.tasks().keys()
    with pytest.raises(UsageError, match="no task or benchmark is called 'hidden'"):
        names("hidden")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("3", "TASKS: a tuple of tasks expected, 3 found"),
        ("('okvqa_val',)", "TASKS: an eval.Task expected, 'okvqa_val' found"),
        ("(task('Shapes'),)", "name: <benchmark>_<split>, .* expected, 'Shapes' found"),
        ("(task('all_test'),)", "name: .* 'all_test' found"),
        ("(task(7),)", "name: .* 7 found"),
        ("(task('x_y', size=-1),)", "size: a positive integer or None expected, -1 found"),
        ("(task('x_y', layouts=()),)", r"layouts: .* expected, \(\) found"),
        ("(task('x_y', layouts=(Layout((), read),)),)", "layouts: "),
        ("(task('x_y', layouts=(Layout((Source('../x'),), read),)),)", "layouts: "),
        ("(task('x_y', layouts=(Layout((Source('/x'),), read),)),)", "layouts: "),
        ("(task('x_y', layouts=(Layout((Source('x', 'ab'),), read),)),)", "layouts: "),
        ("(task('x_y', layouts=(Layout((Source('x'),), 'read'),)),)", "layouts: "),
        ("(task('x_y', prompt='What?'),)", "prompt: a text with a {field} expected, 'What"),
        ("(task('x_y', prompt='{image} What?'),)", "prompt: <img>{image}</img> around"),
        ("(task('x_y', prompt=b'{image}'),)", "prompt: "),
        ("(task('x_y', decode=Generate(5, 6)),)", "new tokens: "),
        ("(task('x_y', decode=Generate(0)),)", "decode: "),
        ("(task('x_y', decode=Rank((' A',))),)", "decode: a Generate, or the class Rank"),
        ("(task('x_y', metrics={}),)", "metrics: name -> metric, at least one"),
        ("(task('x_y', metrics={'acc': 3}),)", "metrics: names in snake_case, and functions"),
        ("(task('x_y', metrics={'A c': print}),)", "metrics: names in snake_case"),
        ("(task('x_y', metrics={'a': Corpus(None)}),)", "metrics: names in snake_case"),
        ("(task('x_y', metrics={'a': Corpus(len, mean=1)}),)", "metrics: names in snake_case"),
        ("(task('x_y', readable=1),)", "readable: a function or None expected, 1 found"),
        ("(Task('x_y'),)", "cannot be loaded: TypeError: .*missing"),
    ],
)
def test_a_task_is_checked_when_it_is_loaded(offer, tasks, message):
    """What would fail in the middle of a run, or change its figure, is refused before it starts."""
    offer("lab-checked", {"lab_checked.py": f"{TASK}\nTASKS = {tasks}"}, tasks={"x": "lab_checked"})
    with pytest.raises(PluginError, match=f"lab_checked of lab-checked 0.1: .*{message}"):
        names("x_y")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("lab_entry", "lab_entry of lab-entry 0.1: a module that holds TASKS expected, none found"),
        ("lab_entry:nothing", "lab_entry:nothing of lab-entry 0.1: "),
        ("lab_none", "lab_none of lab-entry 0.1: cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_an_entry_point_that_leads_to_no_tasks_is_a_plugin_error(offer, value, message):
    """A package that offers nothing is told so, instead of being passed over."""
    offer("lab-entry", {"lab_entry.py": ""}, tasks={"x": value})
    with pytest.raises(PluginError, match=message):
        names("x_y")


def test_two_entry_points_may_lead_to_one_module(offer):
    """A package and one of its modules, both listed: that is no clash."""
    modules = {"lab_twice/__init__.py": "", "lab_twice/a.py": TASK + "TASKS = [task('a_test')]"}
    offer("lab-twice", modules, tasks={"x": "lab_twice", "y": "lab_twice.a"})
    expected = ["a_test"]
    assert expected == names("a")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("lab_backend:TEXT", "a callable that opens a back end expected, 'x' found"),
        ("lab_backend:nothing", "cannot be loaded: AttributeError"),
        ("lab_absent:open", "cannot be loaded: ModuleNotFoundError"),
        ("lab_backend.fails:open", "cannot be loaded: RuntimeError: no licence"),
    ],
)
def test_a_back_end_that_cannot_be_opened_is_a_plugin_error(offer, value, message):
    """And the package's own error stands behind it."""
    modules = {
        "lab_backend/__init__.py": "TEXT = 'x'",
        "lab_backend/fails.py": "raise RuntimeError('no licence')",
    }
    offer("lab-backend", modules, backends={"mine": value})
    with pytest.raises(PluginError, match=f"{value} of lab-backend 0.1: {message}"):
        plugins.backend("mine")


def test_a_benchmarks_judge_is_checked(offer):
    """Found by the benchmark's name; an error names the distribution, and what is missing."""
    assert plugins.judge("touchstone", JudgedTask).ROUNDS == (1, 2)
    with pytest.raises(UsageError, match=r"'touchston'; did you mean 'touchstone'\?"):
        plugins.judge("touchston", JudgedTask)
    modules = {"lab_judge.py": "ROUNDS = (1,)\n", "lab_broken.py": "import no_such_module\n"}
    offer("lab", modules, judges={"talks": "lab_judge", "broken": "lab_broken"})
    with pytest.raises(PluginError, match=r"^lab_judge of lab 0\.1: .* lacks ANCHORS, .*messages"):
        plugins.judge("talks", JudgedTask)
    with pytest.raises(PluginError, match=r"^lab_broken of lab 0\.1: cannot be loaded: Modu"):
        plugins.judge("broken", JudgedTask)
    offer("lab-two", {}, judges={"talks": "lab_judge"})
    with pytest.raises(PluginError, match=r"is offered twice, by lab_judge of lab 0\.1 and by"):
        plugins.judge("talks", JudgedTask)
