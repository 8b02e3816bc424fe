"""The plan of a round, and how workers take from it: all of it, nothing twice, nobody too much."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.api import Generate, Prediction, Rank, Request
from eval.errors import RunError
from eval.launch.coordinator import Coordinator, run_rounds
from eval.launch.local import device_shares
from eval.launch.plan import AT_ONCE, IMAGE_WORK, RoundPlan
from eval.launch.queue import Here, Order, Queue, Report
from eval.launch.worker import Worker, _Taking
from eval.run.folder import RunFolder
from eval.run.requests import Identified

DECODES = (Generate(5), Generate(30, 2), Rank((" A", " B", " a longer one")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@st.composite
def questions(draw, most=40):
    """Any questions on few pictures, now and then very many on one."""
    keys = draw(st.lists(st.sampled_from(["", "a", "b", "c", "ü"]), max_size=most))
    if draw(st.integers(0, 9)) == 0:
        keys += ["many"] * draw(st.integers(AT_ONCE - 1, 2 * AT_ONCE + 1))
    seed = random.Random(draw(st.integers(0, 99)))
    return [
        Identified(
            Request(
                f"{seed.choice(['one_x', 'two_y'])}/{n}",
                f"<img>{key}</img>" + "word " * seed.randrange(60),
                seed.choice(DECODES),
                seed.random() < 0.3,
            ),
            f"{n:016x}",
            key,
        )
        for n, key in enumerate(keys)
    ]


def work(wanted):
    decode = wanted.request.decode
    new = decode.max_new_tokens if isinstance(decode, Generate) else sum(map(len, decode.options))
    return len(wanted.request.prompt) // 4 + (new if isinstance(decode, Generate) else new // 4)


@settings(max_examples=120)
@given(wanted=questions(), alone=st.booleans())
def test_a_plan_holds_each_question_once(folder, wanted, alone):
    """In groups of one picture, none too large, by work; and what is left behind each is right."""
    plan = RoundPlan.write(folder / "plan.sqlite", wanted, alone=alone)
    groups = [plan.group(number) for number in range(plan.groups)]
    assert list(range(plan.groups)) == [group.number for group in groups]
    by_id = {each.request.id: each for each in wanted}
    held = [request for group in groups for request in group.requests]
    assert sorted(by_id) == sorted(request.id for request in held)
    assert all(by_id[request.id].request == request for request in held)
    for group in groups:
        members = [by_id[request.id] for request in group.requests]
        assert 1 <= len(members) <= (1 if alone else AT_ONCE)
        assert 1 == len({member.group for member in members})
        assert {m.request.id: m.of for m in members} == group.of
        assert sum(map(work, members)) + IMAGE_WORK == group.work
        assert [m.of for m in members] == sorted(m.of for m in members)  # in dataset order
    assert [g.work for g in groups] == sorted((g.work for g in groups), reverse=True)
    assert sum(g.work for g in groups) == plan.work
    assert [g.left for g in groups] == [sum(h.work for h in groups[g.number + 1 :]) for g in groups]
    if not alone:
        parts = Counter(each.group for each in wanted)
        assert sum(-(-count // AT_ONCE) for count in parts.values()) == plan.groups
    assert Counter(each.request.id.partition("/")[0] for each in wanted) == plan.counts()
    plan.close()


@settings(max_examples=30)
@given(wanted=questions())
def test_the_same_questions_make_the_same_plan(folder, wanted):
    """Work that is equal does not make the order a matter of chance."""
    told = []
    for name in ("one", "two"):
        plan = RoundPlan.write(folder / name, wanted)
        told.append([plan.group(number) for number in range(plan.groups)])
        plan.close()
    assert told[0] == told[1]


def test_what_is_no_plan_is_named(tmp_path):
    """A reader names the file; a writer that finds no room leaves none behind."""
    (tmp_path / "plan").write_text("nonsense" * 200)
    with pytest.raises(RunError, match="plan: cannot be read as a plan"):
        RoundPlan(tmp_path / "plan")
    with pytest.raises(RunError, match="none/plan: cannot be written"):
        RoundPlan.write(tmp_path / "none" / "plan", [])
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder: cannot be written"):
        RoundPlan.write(tmp_path / "folder", [])
    assert ["folder", "plan"] == sorted(path.name for path in tmp_path.iterdir())


class Simulated:
    """A worker whose back end pulls requests and answers them when it is told to."""

    def __init__(self, plan, order, queue, in_turn):
        self.claimed = []
        self.taking = _Taking(plan, order, in_turn, self.claim)
        self.queue = queue
        self.plan = plan
        self.pending = []
        self.answered = []
        self.requests = None

    def claim(self, order):
        number = self.queue.claim(order)
        if number is not None:
            before = [self.plan.group(held) for held in self.taking.held]
            self.claimed.append((before, self.plan.group(number)))
        return number

    @property
    def ended(self):
        return self.taking.exhausted and not self.pending and self.requests is None

    def pull(self):
        if self.requests is None and not self.pending and not self.taking.exhausted:
            self.requests = self.taking.requests()
        if self.requests is not None:
            request = next(self.requests, None)
            if request is None:
                self.requests = None  # answer() ends when what was pulled is answered
            else:
                self.pending.append(request)

    def answer(self, index):
        if self.pending:
            request = self.pending.pop(index % len(self.pending))
            of = self.taking.answered(Prediction(request.id, ""))
            self.answered.append((request.id, of))


@settings(max_examples=150)
@given(
    wanted=questions(),
    workers=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    in_turn=st.booleans(),
    isolated=st.booleans(),
)
def test_workers_take_each_question_once_and_never_more_than_their_share(
    folder, wanted, workers, seed, in_turn, isolated
):
    """Whoever is fast or slow. Of many workers one holds a single group, or its part of what is
    left; one that is isolated, or whose batches must not meet, a single one."""
    plan = RoundPlan.write(folder / "plan.sqlite", wanted, alone=isolated)
    order = Order(1, plan.path, plan.groups, workers, isolated)
    queue, chance = Queue(Here()), random.Random(seed)
    processes = [Simulated(plan, order, queue, in_turn) for _ in range(workers)]
    speed = [chance.choice([1, 1, 5, 30]) for _ in processes]
    while not all(one.ended for one in processes):
        (one,) = chance.choices(processes, speed)
        if chance.random() < 0.6:
            one.pull()
        else:
            one.answer(chance.randrange(1000))
    answered = [pair for one in processes for pair in one.answered]
    assert sorted((each.request.id, each.of) for each in wanted) == sorted(answered)
    assert all(one.taking.held == [] and one.taking.work == 0 for one in processes)
    for one in processes:
        last = None
        for held, group in one.claimed:
            if held and (workers > 1 or in_turn or isolated):
                assert not in_turn
                assert not isolated
                share = last.left / workers  # of what was left when it last took a group
                assert sum(each.work for each in held) + group.work <= share
            last = group
    assert queue.exhausted(order)
    plan.close()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 6))
def test_a_claim_is_given_once(turns, groups):
    """Whichever of four workers asks; afterwards all are told that there is no more."""
    store = Here()
    queues = [Queue(store) for _ in range(4)]
    order = Order(3, Path("plan"), groups, 4)
    claims = [queues[turn].claim(order) for turn in turns]
    assert [*range(min(groups, len(turns)))] == [each for each in claims if each is not None]
    assert (len(turns) >= groups) == queues[0].exhausted(order)
    assert not Queue(store).exhausted(replace(order, round=4, groups=1))


def test_orders_and_reports_travel_unchanged():
    """Through the store as between processes; a worker waits for a later round than its last."""
    queue = Queue(Here())
    assert queue.report(0) is None
    report = Report("working", 2, beat=7, answers={"okvqa_val": 3}, images=4, held=[5], work_s=2.5)
    queue.write_report(0, report)
    assert report == queue.report(0)
    assert 3 == queue.report(0).answered
    order = Order(2, Path("/run/.work/plan-2.sqlite"), 5, 3, True)
    queue.publish(order)
    assert order == queue.next_order(1, list)
    queue.stop()
    assert queue.next_order(2, list) is None


def plan_of(folder, ids, isolated=False):
    wanted = [Identified(Request(f"t_x/{n}", "?", Generate(1)), f"{n}", "") for n in sorted(ids)]
    return RoundPlan.write(folder / "plan-n", wanted, alone=isolated)


def test_rounds_end_when_nothing_is_missing(tmp_path):
    """After a loss each question is a group of its own; the plans are gone at the end."""
    missing, seen = {1, 2, 3, 4}, []

    def work(plan, order):
        seen.append((order.round, order.isolated, order.groups))
        missing.difference_update(list(missing)[:2])
        return order.round == 1  # a worker was lost in the first

    assert 2 == run_rounds(lambda n, isolated: plan_of(tmp_path, missing, isolated), work, 3)
    assert [(1, False, 1), (2, True, 2)] == seen
    assert [] == list(tmp_path.iterdir())


def test_a_back_end_that_leaves_out_what_it_is_asked(tmp_path):
    """It is no loss, and asking it for ever would not help."""
    with pytest.raises(RunError, match="2 questions were asked and not answered: the back end"):
        run_rounds(lambda n, isolated: plan_of(tmp_path, {1, 2}), lambda plan, order: False, 1)
    assert [] == list(tmp_path.iterdir())


class FakeProcesses:
    """Workers of which the test says what becomes of them."""

    def __init__(self, size):
        self.size = size
        self.next = size
        self.deaths = {}
        self.stopped = None

    def start(self):
        return list(range(self.size))

    def ended(self):
        return self.deaths

    def replace(self, number):
        self.deaths.pop(number, None)
        self.next += 1
        return self.next - 1

    def stop(self, patience_s):
        self.stopped = patience_s


def test_an_error_of_the_user_s_stops_all(tmp_path):
    """The worker's message is the run's, and nobody is replaced for it."""
    processes, queue = FakeProcesses(2), Queue(Here())
    coordinator = Coordinator(queue, processes)
    queue.write_report(1, Report("broken", message="the checkpoint is damaged"))
    processes.deaths = {1: "exit code 2"}
    with pytest.raises(RunError, match=r"^the checkpoint is damaged$"):
        coordinator.about()
    assert 2 == processes.next
    coordinator.stop(at_once=True)
    assert 0.0 == processes.stopped
    assert queue.next_order(0, list) is None


def lose_workers(tmp_path, held):
    """Isolation retries of one worker process, which ends on the question that it holds.

    What the run then tells of each failed sample.
    """
    folder = RunFolder(tmp_path, {"model": {}, "tasks": {}})
    (tmp_path / "t_x").mkdir()
    processes, queue = FakeProcesses(1), Queue(Here())
    coordinator = Coordinator(queue, processes)
    plan = plan_of(tmp_path, range(20), isolated=True)
    try:
        for worker, number in enumerate(held):
            order = Order(worker + 1, plan.path, 1, 1, isolated=True)
            assert 0 == queue.claim(order)
            queue.write_report(worker, Report("working", order.round, held=[number]))
            processes.deaths = {worker: "signal 9"}
            assert coordinator.work(folder, plan, order, lambda reports: None)
        return {plan.group(n).requests[0].id: n for n in set(held)}, folder.answers("t_x").failed()
    finally:
        plan.close()


@pytest.mark.parametrize(
    ("held", "failed"),
    [
        ([1], []),
        ([1, 1], [1]),
        ([1, 2, 3, 4], []),
        ([1, 2, 1, 2], [1, 2]),  # with one worker, nothing else left and no answer in between
        ([1, 2, 3, 4, 1, 2, 3, 4], [1, 2, 3, 4]),
    ],
)
def test_what_two_lost_workers_held_alone_is_put_down(tmp_path, held, failed):
    """Which questions ended them is found out one by one, and no other has failed."""
    numbers, told = lose_workers(tmp_path, held)
    assert set(failed) == {n for name, n in numbers.items() if name.removeprefix("t_x/") in told}
    assert {"each worker that was asked this was lost: signal 9"} >= set(told.values())
    assert len(failed) == len(told)


def test_workers_that_end_on_whatever_they_are_asked(tmp_path):
    """It is not the questions: the run ends after a few workers, and says so."""
    with pytest.raises(RunError, match="8 workers in a row ended without an answer, the last"):
        lose_workers(tmp_path, range(20))


@pytest.mark.parametrize(
    ("workers", "devices", "cores", "expected"),
    [
        (2, [], 5, [{"OMP_NUM_THREADS": "2"}] * 2),
        (3, [], 2, [{"OMP_NUM_THREADS": "1"}] * 3),
        (2, ["0", "1"], 8, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        (1, ["2", "3"], 8, [{"CUDA_VISIBLE_DEVICES": "2,3"}]),
        (2, ["GPU-a", "MIG-b"], 8, [{"CUDA_VISIBLE_DEVICES": n} for n in ("GPU-a", "MIG-b")]),
    ],
)
def test_shares_of_a_machine(workers, devices, cores, expected):
    """Each worker sees its own devices, or takes its part of the cores."""
    assert expected == device_shares(workers, devices, cores)


def test_a_batch_is_never_cut(tmp_path):
    """Samples that are one batch by request are one group, however many they are."""
    asked = [
        Identified(Request(f"t_val/{n}", "a?", Generate(1)), f"{n:016x}", f"t_val {n // 300}")
        for n in range(700)
    ]
    plan = RoundPlan.write(tmp_path / "plan", asked, most=300)
    assert [300, 300, 100] == [len(plan.group(n).requests) for n in range(plan.groups)]
    plan.close()


def test_a_worker_that_comes_late_needs_no_plan(tmp_path):
    """The round is over, and its plan is gone: the worker waits for the next one."""
    order, queue = Order(1, tmp_path / "gone", 2, 2), Queue(Here())
    assert [0, 1, None] == [queue.claim(order) for _ in range(3)]
    worker = Worker(0, queue, RunFolder(tmp_path, {}).journals(0))
    worker.drain(order, backend=None)
    assert ("idle", 1) == (worker.report.state, worker.report.round)
