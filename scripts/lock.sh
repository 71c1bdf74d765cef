#!/bin/sh
# Writes the pins in requirements/ from pyproject.toml; needs a package index. Options go to uv: lock.sh --upgrade
set -eu

compile() {
    .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
        --custom-compile-command 'make lock' "$@"
}

compile "$@" --extra cpu --extra replicas --output-file requirements/serve.txt pyproject.toml
# For the image with CUDA: the same, with the other runtime and PyTorch (which constraints.txt names).
compile "$@" --extra gpu --extra replicas --constraints requirements/serve.txt \
    --excludes requirements/unpinned.txt --output-file requirements/serve-gpu.txt \
    pyproject.toml requirements/constraints.txt
# Ray beside what serves, in an environment of its own.
compile "$@" --extra cpu --extra replicas --extra ray --constraints requirements/serve.txt \
    --output-file requirements/ray.txt pyproject.toml
# What is in both files has one version, or a test would not test what is served.
compile "$@" --extra cpu --extra client --extra replicas --extra traces --extra train --extra genetic --extra bench --extra dev \
    --constraints requirements/serve.txt --constraints requirements/constraints.txt \
    --excludes requirements/unpinned.txt --output-file requirements/dev.txt pyproject.toml
