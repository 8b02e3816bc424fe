"""What surrounds a command: a launcher's and a machine's variables, and configurations."""

from collections.abc import Callable, Mapping
from random import Random

from fuzz import damage
from fuzz.arguments import BASE, JUDGE, ground
from fuzz.cases import Area, Box, Case, Expect, Make, refused, same_output, step, works
from fuzz.damage import BROKEN, SAME

LAUNCHES: tuple[dict[str, str], ...] = (
    {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1",
     "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"},
    {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "m", "MASTER_PORT": "23456"},
    {"RANK": "0", "WORLD_SIZE": "2"},
    {"RANK": "x", "WORLD_SIZE": "y", "LOCAL_RANK": "z"},
    {"RANK": "-1", "WORLD_SIZE": "0", "LOCAL_RANK": "-1"},
    {"RANK": "", "WORLD_SIZE": ""},
    {"RANK": "9" * 40, "WORLD_SIZE": "9" * 40},
    {"WORLD_SIZE": "8"},
    {"LOCAL_RANK": "3"},
    {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "77", "SLURM_LOCALID": "3",
     "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "n1"},
    {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"},
    {"SLURM_PROCID": "x", "SLURM_STEP_NUM_TASKS": "", "SLURM_JOB_ID": "-"},
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
    {"MASTER_PORT": "nonsense"},
    {"TORCHELASTIC_RUN_ID": "x", "GROUP_RANK": "1"},
)  # fmt: skip
SURROUNDINGS: tuple[dict[str, str], ...] = (
    {"HOME": ""}, {"HOME": "/nowhere"}, {"HOME": "/dev/null"}, {"TMPDIR": "/nowhere"},
    {"LANG": "C"},
    {"LC_ALL": "nonsense"}, {"COLUMNS": "0"}, {"COLUMNS": "-5"}, {"COLUMNS": "x"}, {"COLUMNS": "1"},
    {"COLUMNS": "100000"}, {"LINES": "0"}, {"TERM": "dumb"}, {"TERM": "no-such"}, {"NO_COLOR": "1"},
    {"FORCE_COLOR": "1"}, {"TZ": "No/Such"}, {"XDG_CACHE_HOME": "/dev/null"}, {"PATH": ""},
    {"http_proxy": "x", "https_proxy": "socks5://127.0.0.1:1"}, {"SSL_CERT_FILE": "/nowhere"},
    {"OPENAI_BASE_URL": "x", "OPENAI_API_KEY": ""}, {"CUDA_VISIBLE_DEVICES": "-1"},
    {"CUDA_VISIBLE_DEVICES": "0,1,2"}, {"CUDA_VISIBLE_DEVICES": "x"}, {"OMP_NUM_THREADS": "x"},
    {"HF_HOME": "/dev/null"}, {"MPLBACKEND": "no_such"}, {"MPLCONFIGDIR": "/dev/null"},
    {"PYTHONHASHSEED": "x"}, {"SOURCE_DATE_EPOCH": "x"}, {"EDITOR": ""}, {"TYPER_USE_RICH": "x"},
)  # fmt: skip
READERS: Mapping[str, tuple[str, ...]] = {
    "list": ("list",),
    "report": ("report", "run", "--format", "csv"),
    "gate": ("compare", "run", "other", "--gate"),
    "score": ("score", "run"),
    "submit": ("submit", "docvqa_test", "run", "--file", "s.json"),
    "browse": ("browse", "run", "--out", "pages"),
    "leaderboard": ("leaderboard", "run", "--out", "site"),
    "verify": ("data", "verify", "okvqa_val", "--data", "data"),
    "judge": (*JUDGE, "--base-url", BASE),
}
EVERYWHERE = (
    "tmp/qwen-vl-eval-*",  # in place of a home that is none

    "run/*/scores.jsonl", "run/*/summary.json", "run/.work", "run/.work/*", "s.json", "pages",
    "pages/*", "site", "site/*", ".judge-ledger.jsonl.lock",
)  # fmt: skip


def environment(box: Box, rng: Random) -> Case:
    """A launcher's variables, or a machine's, around a command that only reads: as without them."""
    ground(box)
    command = rng.choice(list(READERS))
    env = rng.choice(rng.choice([LAUNCHES, SURROUNDINGS]))
    place = box.control(command)
    code = 3 if command == "verify" else 0
    check = None
    if "COLUMNS" not in env and "FORCE_COLOR" not in env and "TERM" not in env:
        check = same_output(place)
    one = step(READERS[command], Expect((code,), (), check), env=env, writes=EVERYWHERE)
    return Case(f"{env}; {command}", (one,))


def _control(command: str) -> Make:
    def make(box: Box, _: Random) -> Case:
        ground(box)
        code = 3 if command == "verify" else 0
        return Case(command, (step(READERS[command], Expect((code,)), writes=EVERYWHERE),))

    return make


# Configurations

CONFIG = """# a row
model = "Qwen/Qwen-VL"
revision = "0123"
dtype = "bfloat16"
protocol = "published"
few_shot = 0
seed = 0
batch_size = 1
greedy = false
partial = true
tasks = ["okvqa_val"]
"""
CONFIG_VALUES: tuple[tuple[str, str], ...] = (
    ("model", "5"), ("model", "[]"), ("model", "true"), ("revision", "1.5"), ("dtype", '"int8"'),
    ("dtype", "32"), ("protocol", '"chat"'), ("protocol", "[]"), ("few_shot", "-1"),
    ("few_shot", "1.5"), ("few_shot", "true"), ("few_shot", '"4"'), ("seed", "nan"),
    ("seed", "-1"), ("batch_size", "0"), ("batch_size", "-3"), ("batch_size", "inf"),
    ("greedy", "1"), ("greedy", '"yes"'), ("partial", "0"), ("tasks", '"okvqa_val"'), ("tasks",
    "[]"),
    ("tasks", "[5]"), ("tasks", '["no_such_task"]'), ("tasks", '[["okvqa_val"]]'), ("tasks", "{}"),
    ("tasks", '[""]'), ("batch_size", "2000-01-01"), ("seed", "{a = 1}"), ("few_shot", "[[]]"),
)  # fmt: skip
CONFIG_BYTES: Mapping[str, tuple[Callable[[str], bytes], str]] = {
    "a byte order mark": (lambda text: b"\xef\xbb\xbf" + text.encode(), SAME),
    "lines as on Windows": (lambda text: text.replace("\n", "\r\n").encode(), SAME),
    "UTF-16": (lambda text: text.encode("utf-16"), BROKEN),
    "no text": (lambda _: b"\xff\xfe\xfd", BROKEN),
    "zero bytes": (lambda text: text.encode() + bytes(9), BROKEN),
    "brackets": (lambda text: f"{text}a = {'[' * 100_000}".encode(), BROKEN),
    "closed brackets": (lambda text: f"{text}a = {'[' * 5000}{']' * 5000}".encode(), BROKEN),
    "inline tables": (lambda text: f"{text}a = {'{a=' * 5000}1{'}' * 5000}".encode(), BROKEN),
    "a dotted key": (lambda text: f"{text}{'a.' * 50_000}a = 1".encode(), BROKEN),
    "a dotted table": (lambda text: f"{text}[{'a.' * 50_000}a]".encode(), BROKEN),
    "a long number": (lambda text: f"{text}a = {'9' * 5000}".encode(), BROKEN),
    "a key twice": (lambda text: f"{text}seed = 1\n".encode(), BROKEN),
    "an unknown key": (lambda text: f"{text}bacth_size = 1\n".encode(), BROKEN),
    "a table": (lambda text: f"{text}[judge]\nmodel = 'x'\n".encode(), BROKEN),
    "empty": (lambda _: b"", BROKEN),
    "JSON": (lambda _: b'{"model": "x"}', BROKEN),
    "only a comment": (lambda _: b"# nothing\n", BROKEN),
    "no model": (lambda text: text.replace('model = "Qwen/Qwen-VL"', "").encode(), BROKEN),
    "no tasks": (lambda text: text.replace('tasks = ["okvqa_val"]', "").encode(), BROKEN),
    "an open text": (lambda text: text.replace('published"', "published").encode(), BROKEN),
    "a value too many": (lambda text: text.replace("seed = 0", "seed = 0 1").encode(), BROKEN),
    "2 MB": (lambda text: (text + "# x\n" * 500_000).encode(), damage.OTHER),
}


def config(box: Box, rng: Random) -> Case:
    """A configuration of a row: bytes, keys, values, no file."""
    box.link("four", "data")
    argv = ("card", "row.toml", "--dry-run", "--data", "data")
    turn = rng.choice(["bytes", "bytes", "value", "value", "none", "cut"])
    if turn == "bytes":
        what = rng.choice(list(CONFIG_BYTES))
        make, kind = CONFIG_BYTES[what]
        box.write("row.toml", make(CONFIG))
        expect = {SAME: [works()], BROKEN: [refused("row.toml")]}.get(
            kind, [works(), refused("row.toml")]
        )
    elif turn == "value":
        key, value = rng.choice(CONFIG_VALUES)
        lines = [f"{key} = {value}" if row.startswith(f"{key} =") else row
                 for row in CONFIG.splitlines()]  # fmt: skip
        box.write("row.toml", "\n".join(lines))
        what, expect = f"{key} = {value}", [refused("row.toml")]
        if (key, value) == ("revision", "1.5"):
            expect = [refused("row.toml")]
    elif turn == "cut":
        end = rng.randrange(len(CONFIG))
        box.write("row.toml", CONFIG[:end])
        what, expect = f"cut after {end} bytes", [refused("row.toml"), works()]
        if end < CONFIG.index("tasks"):
            expect = [refused("row.toml")]
    else:
        box.write("row.toml", CONFIG)
        what = damage.replace(box.here / "row.toml", rng)
        expect = [refused("row.toml")]
    return Case(f"configuration: {what}", (step(argv, *expect),))


MAKERS: tuple[Make, ...] = (environment, config)
CONTROLS = {command: _control(command) for command in READERS}
AREA = Area("surroundings", MAKERS, count=240, controls=CONTROLS)
