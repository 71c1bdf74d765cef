"""What is kept of each subject: the documents that its JSON file holds."""

from dataclasses import dataclass

from benchmarks.engine import Ran
from benchmarks.floor import Floor
from benchmarks.machine import Environment
from benchmarks.measure import LoadResult
from benchmarks.peers.plan import Piece
from benchmarks.plan_check import Compared

AUTO_SIMULATION_FILE, AUTO_LOAD_FILE = "auto-simulation-{bundle}.json", "auto-load.json"
CACHE_FILE = "cache.json"
PLAN_FILE = "plan.json"
RAY_FILE = "ray.json"
PEERS_FILE, ENGINE_FILE, CPU_FILE, ALONE_FILE, MEMORY_FILE = (
    "peers.json",
    "engine.json",
    "server-cpu.json",
    "server-alone.json",
    "server-memory.json",
)


@dataclass(frozen=True)
class PeersDocument:
    """Ours under `profile` beside the peers with the static twin; top-1 of both (0..1) as their bundles say."""

    photos: str
    bundle: str
    profile: str
    top1: float
    static_bundle: str
    static_top1: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class EngineRun:
    """One way to run the cascade, in one round."""

    way: str
    round: int
    ran: Ran


@dataclass(frozen=True)
class EngineDocument:
    """Scripted exits on random weights. GMACs of one image, cumulative by exit, and of the static twin."""

    environment: Environment
    architecture: str
    exit_gmacs: tuple[float, ...]
    static_gmacs: float
    shares: tuple[float, ...]
    batch: int
    in_flight: int
    threads: int
    runs: tuple[EngineRun, ...]


@dataclass(frozen=True)
class CpuDocument:
    """CPU of the server at `load.clients` clients, and of decoding and the stages done directly, as crowded.

    `main_thread_ms` is the event loop's share of the server's CPU a request.
    """

    environment: Environment
    photos: str
    bundle: str
    profile: str
    load: LoadResult
    main_thread_ms: float
    mean_batches: tuple[float, ...]
    floors: tuple[Floor, ...]


@dataclass(frozen=True)
class AloneDocument:
    """One client on an idle machine: milliseconds of each photo by HTTP, and done directly in this process."""

    environment: Environment
    photos: str
    bundle: str
    profile: str
    client_ms: tuple[float, ...]
    direct_ms: tuple[float, ...]


@dataclass(frozen=True)
class MemoryPoint:
    """Resident memory of the server after so many requests."""

    requests: int
    rss_bytes: int


@dataclass(frozen=True)
class MemoryDocument:
    """Resident memory while requests go by."""

    environment: Environment
    photos: str
    bundle: str
    profile: str
    clients: int
    points: tuple[MemoryPoint, ...]


@dataclass(frozen=True)
class CacheDocument:
    """The same requests, for so many images by Zipf's law, without the cache and with it, from its empty start.
    `repeats`: share of them (0..1) for an image that was asked for before."""

    environment: Environment
    photos: str
    bundle: str
    profile: str
    images: int
    requests: int
    repeats: float
    computed: LoadResult
    cached: LoadResult


@dataclass(frozen=True)
class SimulatedRun:
    """One budget under one shape of load, in simulated time. `top1` is what the report split measured at the points
    that images were let in under, on average; `switches_a_minute` the most in any 60 s."""

    traffic: str
    budget: str
    offered: int
    refused: int
    p50_ms: float
    p99_ms: float
    late_share: float
    mean_gmacs: float
    top1: float
    switches: int
    switches_a_minute: int


@dataclass(frozen=True)
class AutoSimulationDocument:
    """Costs measured on the machine of `environment`, seconds of a batch by stage and size. Loads are multiples of
    `capacity_per_s`, what the ceiling bears; `floor_capacity` is such a multiple too."""

    environment: Environment
    bundle: str
    floor: str
    ceiling: str
    p99_objective_ms: float
    batch_s: tuple[dict[str, float], ...]
    lanes: int
    max_batch: int
    queue_limit: int
    capacity_per_s: float
    floor_capacity: float
    seconds: float
    seed: int
    runs: tuple[SimulatedRun, ...]


@dataclass(frozen=True)
class AutoLoadRun:
    """One budget under an open loop over HTTP. `points`: how many answers each point of the frontier decided."""

    budget: str
    load: LoadResult
    late_share: float
    points: dict[str, int]


@dataclass(frozen=True)
class AutoLoadDocument:
    """Random weights: exits follow scripted shares, accuracy means nothing. `capacity_per_s` is what a closed loop got
    out of the ceiling; `shares` of exits at floor and ceiling."""

    environment: Environment
    architecture: str
    photos: str
    floor_shares: tuple[float, ...]
    ceiling_shares: tuple[float, ...]
    p99_objective_ms: float
    capacity_per_s: float
    runs: tuple[AutoLoadRun, ...]


@dataclass(frozen=True)
class PlanDocument:
    """Forecasts of the capacity planner beside the simulation, so many images of each case. It is the same on every
    machine."""

    images: int
    seed: int
    cases: tuple[Compared, ...]


@dataclass(frozen=True)
class RayRun:
    """A closed loop on `replicas` of the whole service (`topology` is "replicas"), or of each stage ("stages")."""

    topology: str
    replicas: tuple[int, ...]
    load: LoadResult


@dataclass(frozen=True)
class RayDocument:
    """On Ray Serve, with stages that sleep for `stage_seconds` an image; every image goes through all of them."""

    environment: Environment
    ray: str
    stage_seconds: tuple[float, ...]
    max_batch: int
    clients: int
    runs: tuple[RayRun, ...]
