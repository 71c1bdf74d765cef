# PYTHON names the Python that makes the virtual environments (3.11 or newer, found by itself when not given).
export PYTHON
PORT ?= 8000
BUNDLE ?= checkpoints/imagenette-hybrid
# Bundles of random weights for `make bench`: made when they are not there.
GEOMETRY ?= build/t2t_vit_12
# Two test processes, since more would fight over the cores of a small machine.
TEST_PROCESSES ?= 2
# Named, so that a machine with a GPU needs nothing that only others of the tests import.
GPU_TESTS := tests/service/backends/test_conformance.py tests/service/backends/test_cuda.py tests/training/test_gradients.py \
	tests/training/test_step_on_gpu.py tests/benchmarks/gpu/test_triton_kernels.py

SERVE := .venv-serve
DEV := .venv
RAY := .venv-ray-serve

.DEFAULT_GOAL := help
.PHONY: help setup run test check verify e2e-compose browser picture gpu-test gpu-bench bench lock

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

setup: ## the virtual environment .venv with everything: training, tests and the command dvt
	@scripts/venv.sh $(DEV) requirements/dev.txt pyproject.toml

run: ## serve the shipped bundle on 127.0.0.1:8000 (or PORT=8001, BUNDLE=FOLDER), from an environment without torch
	@scripts/venv.sh $(SERVE) requirements/serve.txt
	@$(SERVE)/bin/python scripts/run.py --port $(PORT) --bundle $(BUNDLE)

test: setup ## all tests that need no GPU and no patience
	@$(DEV)/bin/python -m pytest -q -n $(TEST_PROCESSES) --dist loadfile

check: setup ## format, lint, types, directions of imports
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/ruff check .
	$(DEV)/bin/mypy
	$(DEV)/bin/lint-imports --no-logo
	$(DEV)/bin/hadolint Dockerfile deploy/proxy/Dockerfile

verify: setup ## the slow and real: full-size statistics, whole training runs, the playground in a browser, dashboards by a Prometheus, Ray Serve
	@$(DEV)/bin/python scripts/browser.py >/dev/null || echo 'They are skipped.' >&2
	@scripts/venv.sh $(RAY) requirements/ray.txt
	@$(DEV)/bin/python -m pytest -q -m "slow and not gpu"

e2e-compose: setup ## docker compose up, for real: dvt, prometheus, and the profile scaled (COMPOSE_FILE=... names the files)
	@docker compose version >/dev/null && docker info >/dev/null
	@$(DEV)/bin/python -m pytest -q -rA -m compose tests/e2e/test_compose.py tests/e2e/test_compose_scaled.py

browser: setup ## a browser for verify and picture: the one that is there, else Debian's Chromium
	@$(DEV)/bin/python scripts/browser.py

picture: setup ## the picture of the playground in the README
	@PYTHONPATH=. $(DEV)/bin/python scripts/playground_picture.py

bench: setup ## the service beside LitServe, MOSEC and Ray Serve, and what serving costs (DATA=FOLDER of JPEG photos)
	$(DEV)/bin/dvt bench peers $(if $(DATA),--data $(DATA))
	$(DEV)/bin/dvt bench server cpu $(if $(DATA),--data $(DATA))
	$(DEV)/bin/dvt bench server alone $(if $(DATA),--data $(DATA))
	$(DEV)/bin/dvt bench server memory $(if $(DATA),--data $(DATA))
	$(DEV)/bin/dvt bench cache $(if $(DATA),--data $(DATA))
	test -d $(GEOMETRY) || $(DEV)/bin/dvt bench geometry $(GEOMETRY)
	$(DEV)/bin/dvt bench engine $(GEOMETRY)
	$(DEV)/bin/dvt bench auto simulate --png docs/auto-simulation.png
	$(DEV)/bin/dvt bench auto load $(GEOMETRY) --png docs/auto-load.png $(if $(DATA),--data $(DATA))
	$(DEV)/bin/dvt bench ray
	$(DEV)/bin/dvt bench report

gpu-test: $(if $(GPU_PYTHON),,setup) ## what needs a CUDA device (GPU_PYTHON=python3: one that has PyTorch for CUDA, pytest and xdist)
	@$(or $(GPU_PYTHON),$(DEV)/bin/python) -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu-test needs a CUDA device")'
	@$(or $(GPU_PYTHON),$(DEV)/bin/python) -m pytest -q -m gpu -n $(TEST_PROCESSES) $(GPU_TESTS)

gpu-bench: $(if $(GPU_PYTHON),,setup) ## stages, cascade, static twin and kernels on a CUDA device, against its ceilings, resumable (GPU_PYTHON as above; GPU_MINUTES=8: begin nothing later)
	@$(or $(GPU_PYTHON),$(DEV)/bin/python) -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "gpu-bench needs a CUDA device")'
	@$(or $(GPU_PYTHON),$(DEV)/bin/python) dvt.py bench gpu $(if $(GPU_MINUTES),--minutes $(GPU_MINUTES)) $(if $(DATA),--data $(DATA))

lock: ## make the pins in requirements/ anew from pyproject.toml (UV_OPTIONS=--upgrade for newer versions)
	@scripts/venv.sh .venv-lock requirements/lock.txt
	@scripts/lock.sh $(UV_OPTIONS)
