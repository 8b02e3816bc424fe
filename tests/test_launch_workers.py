"""Which GPUs each worker sees; without one, which share of the cores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.launch.local import device_shares
from eval.launch.workers import model_replicas

GIB = 1 << 30


@pytest.mark.parametrize(
    ("gpus", "need", "each", "expected"),
    [
        (8, 19 * GIB, 80 * GIB, 8),
        (8, 19 * GIB, 24 * GIB, 8),
        (8, 38 * GIB, 24 * GIB, 4),  # float32 on cards of 24 GiB: two for each model
        (7, 38 * GIB, 24 * GIB, 3),
        (1, 38 * GIB, 24 * GIB, 1),  # what does not fit goes to the host's memory
        (2, 0, 24 * GIB, 2),  # a back end that does not tell its size
    ],
)
def test_as_many_models_as_fit(gpus, need, each, expected):
    """A model takes as many GPUs as hold its weights with something to spare."""
    assert expected == model_replicas(gpus, need, each)


@given(st.integers(1, 16), st.integers(1, 16))
def test_no_gpu_is_shared(workers, per_worker):
    """Each worker sees GPUs of its own, as many as any other."""
    devices = [f"GPU-{n}" for n in range(workers * per_worker)]
    seen = [
        share["CUDA_VISIBLE_DEVICES"].split(",") for share in device_shares(workers, devices, 4)
    ]
    assert devices == [device for devices_seen in seen for device in devices_seen]
    assert {per_worker} == {len(devices_seen) for devices_seen in seen}


@given(st.integers(1, 64), st.integers(1, 64))
def test_cores_are_shared_out(workers, cores):
    """Threads of all workers together are no more than the cores, but for one each."""
    told = [int(share["OMP_NUM_THREADS"]) for share in device_shares(workers, [], cores)]
    assert workers == len(told)
    assert sum(told) <= max(cores, workers)
