"""What a machine costs by the second, and whose seconds they were."""

from __future__ import annotations

import datetime

import pytest

from shared.prices import CORE_SECOND, GIB_SECOND, GPU_SECOND, PRICES_OF, Machine, Meter, gpu_of


def test_the_table_has_a_day() -> None:
    assert datetime.date.fromisoformat(PRICES_OF).year >= 2026


def test_a_machine_costs_its_cores_its_memory_and_its_gpu() -> None:
    bare = Machine(cores=2, memory_gib=8)
    assert bare.second_usd == pytest.approx(2 * CORE_SECOND + 8 * GIB_SECOND)
    assert Machine(2, 8, "L40S").second_usd == pytest.approx(
        2 * CORE_SECOND + 8 * GIB_SECOND + GPU_SECOND["L40S"]
    )


def test_a_gpu_without_a_price_has_no_estimate() -> None:
    assert Machine(2, 8, "Voodoo 2").second_usd is None


@pytest.mark.parametrize(
    ("device", "gib", "gpu"),
    [
        ("Tesla T4", 15, "T4"),
        ("NVIDIA L4", 22, "L4"),
        ("NVIDIA A10G", 22, "A10"),
        ("NVIDIA A10", 22, "A10"),
        ("NVIDIA L40S", 44, "L40S"),
        ("NVIDIA A100-SXM4-40GB", 40, "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", 79, "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", 79, "A100-80GB"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 95, "RTX-PRO-6000"),
        ("NVIDIA H100 80GB HBM3", 79, "H100"),
        ("NVIDIA H200", 140, "H200"),
        ("NVIDIA B200", 180, "B200"),
        ("Voodoo 2", 0, "Voodoo 2"),
    ],
)
def test_a_gpu_is_known_by_what_cuda_calls_it(device: str, gib: float, gpu: str) -> None:
    assert gpu_of(device, gib) == gpu


def test_each_second_is_divided_among_those_served_in_it() -> None:
    clock = [0.0]
    meter = Meter(lambda: clock[0])
    with meter.running() as first:
        clock[0] = 2.0  # two seconds alone
        with meter.running() as second:
            clock[0] = 6.0  # four seconds for two
            assert (first(), second()) == (4.0, 2.0)
        clock[0] = 7.0  # and one alone again
        assert first() == 5.0
    clock[0] = 100.0  # nobody is served: nobody's seconds
    with meter.running() as third:
        clock[0] = 101.0
        assert third() == 1.0
