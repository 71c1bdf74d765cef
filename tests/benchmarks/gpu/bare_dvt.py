"""The command `dvt` where nothing can be imported but what a machine for GPU work has.

python -m tests.benchmarks.gpu.bare_dvt bench gpu ...
"""

import sys

ABSENT = (
    "fastapi",
    "httpx",
    "matplotlib",
    "onnxscript",
    "prometheus_client",
    "psutil",
    "pydantic",
    "pydantic_settings",
    "pymoo",
    "rich",
    "scipy",
    "starlette",
    "uvicorn",
)

if __name__ == "__main__":
    for name in ABSENT:
        sys.modules[name] = None  # type: ignore[assignment] # Python's own way to say that there is none.
    import dvt

    sys.exit(dvt.main(sys.argv[1:]))
