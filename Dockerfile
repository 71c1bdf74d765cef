# The service as an image: `cpu` (ONNX Runtime without PyTorch; what is built when no target is named) or `cuda`.
#
#   docker build -t dvt:cpu .
#   docker build -t dvt:cuda --target cuda .
#
# Packages are pinned by requirements/, the base by its tag; a digest goes here as well:
#   --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# Both stages of one target have the same base, so that a virtual environment made in one runs in the other.
FROM ${PYTHON_IMAGE} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/dvt

FROM packages AS packages-cpu
COPY requirements/serve.txt /requirements/
RUN python -m pip --python /opt/dvt/bin/python install --quiet -r /requirements/serve.txt \
    && find /opt/dvt -depth -type d -name tests -exec rm -r {} +

FROM packages AS packages-cuda
COPY requirements/serve-gpu.txt /requirements/
RUN python -m pip --python /opt/dvt/bin/python install --quiet -r /requirements/serve-gpu.txt

FROM ${PYTHON_IMAGE} AS source
COPY dvt.py LICENSE NOTICE /app/
COPY models/ /app/models/
COPY service/ /app/service/
COPY checkpoints/imagenette-hybrid/ /app/checkpoints/imagenette-hybrid/
COPY samples/ /app/samples/
COPY deploy/container/ready.py /app/
# The root file system is read-only later, and compiling at every start would take longer than starting.
RUN python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${PYTHON_IMAGE} AS runtime
# The state holds keys. Volumes begin as what is here, owner and mode included.
RUN groupadd --gid 10001 dvt \
    && useradd --uid 10001 --gid dvt --no-create-home --home-dir /app --shell /usr/sbin/nologin dvt \
    && install --directory --owner dvt --group dvt --mode 0700 /state /secret \
    && install --directory /bundles
COPY --chmod=755 deploy/container/dvt /usr/local/bin/
COPY --from=source /app /app
ENV PATH=/opt/dvt/bin:$PATH PYTHONDONTWRITEBYTECODE=1 DVT_HOST=0.0.0.0 DVT_PORT=8000 DVT_STATE_DIR=/state \
    ORT_DISABLE_TELEMETRY=1
USER 10001:10001
WORKDIR /app
EXPOSE 8000
VOLUME ["/state"]
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=2 CMD ["python", "-I", "-S", "/app/ready.py"]
# The exec form: SIGTERM reaches the service itself, which drains.
ENTRYPOINT ["dvt"]
CMD ["serve"]

FROM runtime AS cuda
COPY --from=packages-cuda /opt/dvt /opt/dvt
# What NVIDIA's container runtime hands in: the driver, for computing.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime AS cpu
COPY --from=packages-cpu /opt/dvt /opt/dvt
