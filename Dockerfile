# docker build -t cellseg .                      a CPU is enough
# docker build -t cellseg:cuda --target cuda .   NVIDIA GPUs (docker run --gpus all …)
#
# docker run --rm --read-only --network none --tmpfs /tmp -v "$PWD:/data" -u "$(id -u)" cellseg count slide.svs

FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_CONSTRAINT=/src/requirements.lock HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
RUN useradd --uid 1000 cellseg
WORKDIR /src
COPY requirements.lock .

# The lock has the versions: hadolint does not see them.
FROM base AS cuda
# hadolint ignore=DL3013
RUN pip install torch torchvision
COPY . .
# hadolint ignore=DL3013
RUN pip install ".[remote,cluster]"
USER 1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=2m CMD ["cellseg", "doctor", "--no-window"]
ENTRYPOINT ["cellseg"]
CMD ["--help"]

FROM base AS cpu
# Of a version in both indexes pip prefers the one marked +cpu; what torch needs comes by the lock.
# hadolint ignore=DL3013
RUN pip install torch torchvision --extra-index-url https://download.pytorch.org/whl/cpu
COPY . .
# hadolint ignore=DL3013
RUN pip install ".[remote,cluster]"
USER 1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=2m CMD ["cellseg", "doctor", "--no-window"]
ENTRYPOINT ["cellseg"]
CMD ["--help"]
