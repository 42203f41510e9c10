"""What each worker may use; the dealing of GPUs, on a machine that may have none."""

from __future__ import annotations

import pytest

from search.exceptions import InputError
from search.workers.resources import DeviceShare, Resources, deal


def test_workers_go_round_the_gpus_and_share_the_memory_of_each() -> None:
    assert [share.device for share in deal("cuda", 4, 2)] == ["cuda:0", "cuda:1"] * 2
    assert {share.memory for share in deal("cuda", 4, 2)} == {0.45}
    assert [share.memory for share in deal("cuda", 3, 2)] == [0.45, None, 0.45]


def test_workers_stay_on_the_device_that_is_named() -> None:
    assert deal("cuda:1", 3, 2) == [DeviceShare("cuda:1", 0.9 / 3)] * 3
    assert deal("cuda:1", 1, 2) == [DeviceShare("cuda:1", None)]
    assert deal("cpu", 2, 2) == [DeviceShare("cpu", None)] * 2


@pytest.mark.parametrize(
    ("text", "resources"),
    [
        ("cpu=1", Resources(1, 0)),
        ("gpu=0.25", Resources(1, 0.25)),
        ("cpu=2, gpu=1", Resources(2, 1)),
        ("cpu=0,gpu=0.5", Resources(0, 0.5)),
    ],
)
def test_resources_are_cpus_and_parts_of_gpus(text: str, resources: Resources) -> None:
    assert Resources.parse(text) == resources
    assert Resources.parse(str(resources)) == resources


@pytest.mark.parametrize(
    "text", ["", "cpu", "cpu=x", "cpu=-1", "cpu=nan", "tpu=1", "cpu=1,cpu=1", "cpu=0", "gpu=1.5"]
)
def test_what_are_no_resources_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"must .*but got"):
        Resources.parse(text)


def test_a_machine_holds_as_many_workers_as_its_scarcest_resource_does() -> None:
    machine = {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}
    assert Resources(cpu=1, gpu=0.25).n_in(machine) == 8
    assert Resources(cpu=1, gpu=1).n_in(machine) == 2
    assert Resources(cpu=1, gpu=0.1).n_in({"CPU": 99.0, "GPU": 1.0}) == 10
    assert Resources(cpu=1, gpu=1).n_in({"CPU": 8.0}) == 0


def test_a_worker_of_a_cluster_may_take_its_part_of_the_memory_of_a_gpu() -> None:
    assert Resources(gpu=0.25).share == DeviceShare("cuda:0", 0.9 * 0.25)
    assert Resources(gpu=1).share == DeviceShare("cuda:0", None)
    assert Resources().share == DeviceShare("cpu", None)
