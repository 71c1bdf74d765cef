"""Every setting of the service, in one table: one environment variable, one flag, one line of docs/settings.md.

Secrets have no flag, since a process list shows flags; they have a `_FILE` variant instead. A flag wins over the
environment, the environment over the default. Nothing is read at import: `load_settings` is called once, and
its value is handed down.
"""

import argparse
import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from service.backends.devices import parse_devices

PREFIX = "DVT_"
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
# What the command line reads as a client: where the service is, and the key to use there. No settings of the service.
URL_VARIABLE, USER_KEY_VARIABLE, USER_KEY_FILE_VARIABLE = "DVT_URL", "DVT_KEY", "DVT_KEY_FILE"
DEFAULT_BUNDLE = Path(__file__).resolve().parent.parent / "checkpoints" / "imagenette-hybrid"

MIB = 1024 * 1024


class SettingsError(ValueError):
    """A setting that cannot be used: which one, its value, and what it may be."""


class Settings(BaseModel):
    """The order is that of docs/settings.md. Sizes are in bytes, times in seconds, as the names say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Annotated[Path, Field(description="Folder of the bundle to serve.")] = DEFAULT_BUNDLE
    host: Annotated[str, Field(description="Address to listen on; 0.0.0.0 for every interface.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8000
    backend: Annotated[
        Literal["auto", "onnx", "eager", "compiled", "cudagraph", "compiled-cudagraph"],
        Field(
            description="What computes the stages: ONNX Runtime, or PyTorch in one of four ways. `auto`: ONNX on a "
            "CPU, on a GPU what a short measurement finds quickest (docs/backends.md)."
        ),
    ] = "auto"
    device: Annotated[
        str,
        Field(
            description="Where the stages are computed: `cpu`; `cuda`, all CUDA devices that the process sees; some by "
            "number, `cuda:1` or `cuda:0,cuda:2`; `tensorrt`, CUDA through that compiler, for ONNX alone. `auto`: all "
            "CUDA devices, without any the CPU."
        ),
    ] = "auto"
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Field(description="What PyTorch's backends compute in. Thresholds and certificates were measured in float32."),
    ] = "float32"
    lanes: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="Batches computed at once on each device; 0: for ONNX on a CPU as many as fit the cgroup's "
            "CPUs, for PyTorch on a GPU 2, each in a stream of its own, else 1.",
        ),
    ] = 0
    threads: Annotated[
        int,
        Field(
            ge=0,
            le=1024,
            description="Threads of one batch's computation; 0: for ONNX on a CPU 1, or with DVT_LANES what the cgroup "
            "grants over that; else all that it grants.",
        ),
    ] = 0
    decode_threads: Annotated[
        int, Field(ge=0, le=1024, description="Threads that decode images; 0: as many as the cgroup grants.")
    ] = 0
    state_dir: Annotated[
        Path, Field(description="Folder of what outlives a restart: the budget, the audit's evidence, the admin key.")
    ] = Path("state")
    profile: Annotated[
        str,
        Field(description="Budget at the first start: a profile of the bundle. Later the last `PUT /budget` counts."),
    ] = "balanced"
    ceiling: Annotated[
        str, Field(description="The dearest profile that a request may ask for by itself; empty: no ceiling.")
    ] = ""
    guard_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Against images made to be hard: stages after the first may take this share of computation; "
            "beyond it whoever (key or address) takes more than an equal part of that leaves at his best exit so far. "
            "1: no limit.",
        ),
    ] = 1.0
    audit_share: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of images, drawn by lot, that go on to the last exit after their answer went out, to "
            "see whether certificates still hold (docs/guarantees.md). 0: none.",
        ),
    ] = 0.01
    audit_fallback: Annotated[
        bool,
        Field(
            description="Whether a certificate that the audit finds broken has the next safer profile put in force, "
            "until the next `PUT /budget`."
        ),
    ] = False
    feedback_results: Annotated[
        int, Field(ge=0, description="Latest results that `POST /feedback` takes a label for, 0.2 KB each; 0: none.")
    ] = 10_000
    refine_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=86_400,
            description="How long after its answer an image can be refined from where it left "
            "(`POST /classify/{id}/refine`), unless newcomers need its place; 0: never.",
        ),
    ] = 60.0
    refine_bytes: Annotated[
        int, Field(ge=0, description="Most memory for states kept for that, of DVT_STATE_BYTES; 0: half of it.")
    ] = 0
    cache: Annotated[
        Literal["off", "key", "shared"],
        Field(
            description="Whether the same image again is answered from what was computed before: `key` for each key "
            "(or address) by itself, `shared` whoever sent it first, which others can tell by its speed."
        ),
    ] = "key"
    cache_bytes: Annotated[int, Field(ge=0, description="Most memory for answers that are remembered for both.")] = (
        64 * MIB
    )
    redis_url: Annotated[
        SecretStr,
        Field(
            description="`redis://:PASSWORD@HOST:6379/0`: the budget is that of all replicas that name it; empty: this "
            "one has its own."
        ),
    ] = SecretStr("")
    admin_key: Annotated[
        SecretStr,
        Field(description="Key that may `PUT /budget`; empty: made at first start in `DVT_STATE_DIR/admin-key`."),
    ] = SecretStr("")
    api_keys: Annotated[
        SecretStr,
        Field(
            description="Keys that may use the service, separated by commas, or the name of a file of keys "
            "(see `DVT_API_KEYS_FILE`); empty: no key is needed."
        ),
    ] = SecretStr("")
    metrics_public: Annotated[bool, Field(description="Whether `/metrics` is open when keys are needed elsewhere.")] = (
        False
    )
    allowed_hosts: Annotated[
        str,
        Field(
            description="Host names that requests may use, separated by commas, `*` for any; empty: this machine's own "
            "when listening on the loopback address, any otherwise."
        ),
    ] = ""
    max_body_bytes: Annotated[int, Field(ge=1, description="Largest body of one request.")] = 32 * MIB
    max_image_bytes: Annotated[int, Field(ge=1, description="Largest file of one image.")] = 16 * MIB
    max_image_px: Annotated[
        int,
        Field(
            ge=1,
            le=32768,
            description="Largest image, as the side of a square: one may have that many pixels, in any shape.",
        ),
    ] = 4096
    max_images: Annotated[int, Field(ge=1, le=1024, description="Most images of one request.")] = 16
    body_bytes: Annotated[int, Field(ge=1, description="All request bodies together that are held at once.")] = (
        256 * MIB
    )
    body_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest time that a request's body may take to arrive.")
    ] = 30.0
    queue_limit: Annotated[
        int,
        Field(ge=1, description="Most images inside the service at once; more are refused with 503 and Retry-After."),
    ] = 256
    state_bytes: Annotated[
        int, Field(ge=1, description="Most memory for what stages hand on to the next, on each device.")
    ] = 1024 * MIB
    max_batch: Annotated[int, Field(ge=1, le=1024, description="Most images that a stage computes together.")] = 8
    batch_delay_ms: Annotated[
        float,
        Field(
            ge=0,
            le=60_000,
            description="How long the first stage may wait for a full batch; 0: it never waits while an image does.",
        ),
    ] = 0.0
    stall_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=3600,
            description="A batch that takes longer than this, and than 20 times its measured cost, never ends: the "
            "service is not live any more and exits with code 1.",
        ),
    ] = 30.0
    drain_seconds: Annotated[
        float, Field(gt=0, le=3600, description="After SIGTERM, longest wait for answers; below Docker's 10 s.")
    ] = 8.0
    top_k: Annotated[int, Field(ge=1, description="Predictions of an answer when the request does not say.")] = 5
    access_log: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of requests that is logged; those that fail (500 or more) or are slow always are.",
        ),
    ] = 0.1
    slow_seconds: Annotated[
        float, Field(ge=0, le=3600, description="A request that takes longer than this is logged as slow.")
    ] = 1.0
    otlp_endpoint: Annotated[
        str,
        Field(
            description="Base URL of an OpenTelemetry collector (OTLP over HTTP, `http://collector:4318`) that traces "
            "are sent to; needs the extra `traces`. Empty: `OTEL_EXPORTER_OTLP_ENDPOINT`, and without that none."
        ),
    ] = ""
    log_format: Annotated[
        Literal["auto", "plain", "json"], Field(description="`auto`: plain on a terminal, JSON elsewhere.")
    ] = "auto"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least level that is logged.")
    ] = "info"

    @field_validator("device")
    @classmethod
    def _devices_of_one_kind(cls, value: str) -> str:
        parse_devices(value)
        return value

    @field_validator("otlp_endpoint")
    @classmethod
    def _url_of_a_collector(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it must be the URL of a collector that speaks OTLP over HTTP, http://collector:4318 say")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _port_of_a_kubernetes_service(cls, value: object) -> object:
        if isinstance(value, str) and value.startswith("tcp://"):
            raise ValueError(
                "Kubernetes injects this for a Service named dvt; set enableServiceLinks: false in the pod, or --port"
            )
        return value

    def hosts(self) -> tuple[str, ...]:
        """Host names that requests may use; ("*",) for any."""
        if self.allowed_hosts.strip():
            return tuple(host.strip().lower() for host in self.allowed_hosts.split(",") if host.strip())
        loopback = ("localhost", "127.0.0.1", "::1")
        return loopback if self.host in loopback else ("*",)


@dataclass(frozen=True)
class Loaded:
    """Settings, the files that secrets came from (to be read again when they change), and what to warn about."""

    settings: Settings
    secret_files: Mapping[str, Path]
    warnings: tuple[str, ...]


def secret_names() -> tuple[str, ...]:
    return tuple(name for name, field in Settings.model_fields.items() if field.annotation is SecretStr)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """One flag a setting (secrets have none). `bundle` is the positional argument of the command too."""
    for name, field in Settings.model_fields.items():
        if name in secret_names() or name == "bundle":
            continue
        parser.add_argument(
            flag_of(name),
            dest=f"setting_{name}",
            metavar=name.rsplit("_", 1)[-1].upper(),
            help=_plain(field.description),
        )


def flags_given(arguments: argparse.Namespace) -> dict[str, str]:
    """What `add_flags` found on the command line, by name of the setting."""
    return {
        name: value
        for name in Settings.model_fields
        if (value := getattr(arguments, f"setting_{name}", None)) is not None
    }


def load_settings(environment: Mapping[str, str], flags: Mapping[str, str] | None = None) -> Loaded:
    """Settings of `environment` (os.environ at the edge) and of `flags`. Raises `SettingsError`."""
    values: dict[str, str] = {}
    secret_files: dict[str, Path] = {}
    for name in Settings.model_fields:
        variable = variable_of(name)
        if environment.get(variable, "") != "":
            values[name] = environment[variable]
    # The one variable that is not ours: whoever runs a collector has it set for everybody.
    if "otlp_endpoint" not in values and environment.get(OTLP_VARIABLE):
        values["otlp_endpoint"] = environment[OTLP_VARIABLE]
    for name in secret_names():
        path = environment.get(f"{variable_of(name)}_FILE", "")
        if path and name in values:
            raise SettingsError(f"{variable_of(name)} and {variable_of(name)}_FILE are both set; keep one")
        if path:
            secret_files[name] = Path(path)
    if "api_keys" in values and _is_file(values["api_keys"]):
        secret_files["api_keys"] = Path(values.pop("api_keys"))
    for name, path_of_secret in secret_files.items():
        if not path_of_secret.is_file():
            raise SettingsError(f"{variable_of(name)}_FILE is {path_of_secret}, which is no file")
    given = dict(flags or {})
    try:
        settings = Settings.model_validate({**values, **given})
    except ValidationError as error:
        raise SettingsError(_explain(error, given)) from error
    return Loaded(settings, secret_files, tuple(_unknown(environment)))


def variable_of(name: str) -> str:
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # Too long for a name: keys, then.
        return False


def _explain(error: ValidationError, flags: Mapping[str, str]) -> str:
    """One line: the setting as the user wrote it, its value, and what it may be."""
    problem = error.errors()[0]
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    written = flag_of(name) if name in flags else variable_of(name)
    shown = "(hidden)" if name in secret_names() else repr(problem["input"])
    return f"{written} is {shown}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown(environment: Mapping[str, str]) -> list[str]:
    known = {variable_of(name) for name in Settings.model_fields}
    known |= {f"{variable_of(name)}_FILE" for name in secret_names()}
    known |= {URL_VARIABLE, USER_KEY_VARIABLE, USER_KEY_FILE_VARIABLE}
    found = []
    for variable in sorted(environment):
        if variable.startswith(PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, sorted(known), n=1, cutoff=0.75)
            hint = f"; did you mean {close[0]}?" if close else "; docs/settings.md lists all"
            found.append(f"{variable} is no setting of the service and has no effect{hint}")
    return found


def _plain(description: str | None) -> str:
    return (description or "").replace("`", "").replace("%", "%%")


def _default_text(name: str) -> str:
    default = Settings.model_fields[name].default
    if name == "bundle":
        return "`checkpoints/imagenette-hybrid`"
    if isinstance(default, SecretStr) or default == "":
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def render_markdown() -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made from `service/settings.py` by `python -m service.settings > docs/settings.md`.",
        "",
        "A flag of `dvt serve` wins over the environment variable, that over the default. Secrets have no flag:",
        "a process list shows flags. Their `_FILE` variant names a file with the secret, as Docker and Kubernetes",
        "mount it; it is read again when it changes. `DVT_API_KEYS_FILE` holds one key a line, a name before it if you",
        "like (`alice 3f9c...`); `#` starts a comment. A `DVT_*` that is none of these, nor `DVT_URL`, `DVT_KEY` or",
        "`DVT_KEY_FILE` of [the command line](cli.md), is warned about.",
        "",
        "| variable | flag | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        secret = name in secret_names()
        variable = f"`{variable_of(name)}`" + (f", `{variable_of(name)}_FILE`" if secret else "")
        flag = "none (secret)" if secret else "`BUNDLE` (positional)" if name == "bundle" else f"`{flag_of(name)}`"
        lines.append(f"| {variable} | {flag} | {_default_text(name)} | {field.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_markdown())
