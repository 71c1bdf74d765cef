"""The chapters of docs/performance.md on GPUs: one a device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.goals import Goal
from benchmarks.gpu.binding import RULE
from benchmarks.gpu.document import CEILINGS_FILE, FILE, SHARES, Ceilings, GpuDocument
from benchmarks.gpu.summary import architectures, goals, quickest_cascade
from benchmarks.gpu.tables import PAPER_SHARE, tables
from benchmarks.page import markdown, paragraph, where
from benchmarks.result_files import read_results


@dataclass(frozen=True)
class Device:
    """What is known of one: what it can do at most, and what was measured there; None where only its ceilings were."""

    ceilings: Ceilings
    document: GpuDocument | None


def read_devices(folder: Path) -> tuple[Device, ...]:
    """Those that have a file there. Raises `strict_json.SchemaError` for a file of another version."""
    found: dict[str, Device] = {}
    of_ceilings = sorted(folder.glob(CEILINGS_FILE.format(device="*")))
    for path in of_ceilings:
        if (ceilings := read_results(Ceilings, path)) is not None:
            found[ceilings.device] = Device(ceilings, None)
    for path in sorted(set(folder.glob(FILE.format(device="*"))) - set(of_ceilings)):
        if (document := read_results(GpuDocument, path)) is not None:
            found[document.ceilings.device] = Device(document.ceilings, document)
    return tuple(found.values())


def device_goals(devices: Sequence[Device]) -> tuple[Goal, ...]:
    """Of each device; of a GPU that is none yet, where there is none."""
    if not devices:
        return goals("a GPU", None)
    return tuple(goal for device in devices for goal in goals(device.ceilings.device, device.document))


def chapter(device: Device) -> Iterator[str]:
    ceilings, document = device.ceilings, device.document
    yield f"## On a GPU: {ceilings.device}"
    known = (
        f"Ceilings, measured with PyTorch {ceilings.torch}: {ceilings.matrix_tflops:.0f} TFLOP/s in an 8192-cubed "
        f"product of bfloat16, {ceilings.copy_tb_per_s:.2f} TB/s read and written by a copy"
    )
    if document is None:
        date = f" ({ceilings.date})" if ceilings.date else ""
        yield from paragraph(
            f"{known}{date}. That is all that was measured there: stages, the cascade and its static twin, kernels "
            "and decoding (`make gpu-bench`) have not been run on it yet."
        )
        return
    yield from paragraph(f"`make gpu-bench`: random weights, noise as images. {known}. {where(document.environment)}")
    for how in _how(document):
        yield from paragraph(how)
    for table in tables(document):
        yield from markdown(table, headed=True)
    cascade = quickest_cascade(document)
    if cascade is not None and document.decoding is not None:
        photos = document.decoding
        yield from paragraph(
            f"Photos: {photos.photos}, {photos.mean_bytes / 1024:.0f} KiB on average, to {photos.size_px} px, by "
            f"threads of one process. The quickest cascade: {cascade.architecture}, {cascade.backend}, "
            f"{cascade.in_flight:,} inside, {cascade.ran.images_per_s:,.0f} images/s."
        )
    for failure in document.failures:
        yield f"- Not measured: {failure.piece}: {failure.reason}"
    if document.failures:
        yield ""
    lacking = list(_lacking(document))
    if lacking:
        yield from paragraph(f"Not run there yet: {', '.join(lacking)}.")


def _how(document: GpuDocument) -> Iterator[str]:
    yield (
        "A stage's time is the median of its batch as the engine waits for it, logits on the host included. The "
        "roofline is the sum, over its matrix products and convolutions, of the longer of computing and moving each "
        f"once at the ceilings. {RULE}"
    )
    if document.cascades:
        shares = "/".join(f"{100 * share:g}" for share in SHARES)
        yield (
            f"Cascade: exits scripted in shares of {shares} %; “stages allow” is what they alone would give, one after "
            "another, at their quickest batch that so many images can fill; “outside of stages” is the time in which "
            "no lane is inside one. State is gathered inside; what writing it takes of the device (“ms to hand on”) is "
            "waited for by the next stage. “Realised” is the speed over the static twin as share of the FLOPs saved; "
            f"the published code's was {PAPER_SHARE:.2f}."
        )


def _lacking(document: GpuDocument) -> Iterator[str]:
    if not architectures(document):
        yield "stages"
    if not document.on_device:
        yield "stages by the device's own time stamps"
    if not document.cascades:
        yield "the cascade and its static twin"
    if not (document.relations or document.relation_networks or document.pointwise):
        yield "kernels"
    if document.decoding is None:
        yield "decoding"
