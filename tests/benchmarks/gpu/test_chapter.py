"""The page says of each device what was measured there, and of what was not, that it was not."""

from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.chapter import Device, chapter, device_goals, read_devices
from benchmarks.gpu.document import Ceilings, Failure, GpuDocument
from benchmarks.result_files import write_results
from tests.benchmarks.gpu.measured import CEILINGS, whole
from tests.benchmarks.test_plan import ENVIRONMENT


def words(device: Device) -> str:
    return " ".join(" ".join(chapter(device)).split())


def test_where_only_its_ceilings_were_measured_it_says_just_that() -> None:
    said = words(Device(CEILINGS, None))
    assert "## On a GPU: A 100" in said
    assert "500 TFLOP/s" in said
    assert "2.00 TB/s" in said
    assert "(2026-11-26 10:00). That is all that was measured there" in said
    assert "|" not in said
    assert all(goal.reached is None for goal in device_goals([Device(CEILINGS, None)]))


def test_all_that_was_measured_stands_in_tables() -> None:
    said = words(Device(CEILINGS, whole()))
    assert "**Stages of dvt_t2t_vit_12**" in said
    assert "| cudagraph | 256 | 3.06 / 5.62 / 8.18 | 83,660 / 45,552 / 31,296 | 41.9 % / 45.6 % / 47.0 % |" in said
    assert "| launches / launches / launches |" in said
    assert "| matrix products / matrix products / matrix products |" in said
    assert "50 % / 50 % / 50 % | 300 / 300 / 300 | 0.01 / 0.01 / 0.01 |" in said
    assert "28,000 | 39,174 | 2.0 % | 1.40 | 1.50 | 0.93 |" in said
    assert "(realised by the published code: 0.89)" in said
    assert "| 16 | 5,600 | 350 | 80 |" in said
    assert "| a case | 256 | sum in memory | 1.0e-03 | 2.0000 | 50.0 % |" in said
    assert "| a case | 256 | mask | - | - | cannot: no memory |" in said
    assert "Not run there yet" not in said
    assert "Not measured" not in said


def test_the_rule_of_what_binds_is_on_the_page() -> None:
    assert "more than half of the time would be taken by a batch of no images" in words(Device(CEILINGS, whole()))


def test_what_is_lacking_and_what_failed_is_named() -> None:
    lacking = GpuDocument(ENVIRONMENT, CEILINGS, stages=whole().stages, failures=(Failure("a piece", "no memory"),))
    said = words(Device(CEILINGS, lacking))
    assert "- Not measured: a piece: no memory" in said
    assert (
        "Not run there yet: stages by the device's own time stamps, the cascade and its static twin, kernels, "
        "decoding." in said
    )


def test_devices_come_from_their_files_and_one_that_was_measured_needs_no_file_of_ceilings(tmp_path: Path) -> None:
    assert read_devices(tmp_path) == ()
    assert {goal.what.partition(":")[0] for goal in device_goals(())} == {"a GPU"}
    other = Ceilings("B 200", "2.11.0", 1000.0, 4.0)
    write_results(replace(CEILINGS, matrix_tflops=1.0), tmp_path / "gpu-ceilings-a100.json")
    write_results(other, tmp_path / "gpu-ceilings-b200.json")
    write_results(whole(), tmp_path / "gpu-a-100.json")
    assert read_devices(tmp_path) == (Device(CEILINGS, whole()), Device(other, None))
