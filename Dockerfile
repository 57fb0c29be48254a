# syntax=docker/dockerfile:1
# docker build -t cellseg .                      a CPU is enough
# docker build -t cellseg:cuda --target cuda .   NVIDIA GPUs (docker run --gpus all …)
#
# docker run --rm --read-only --network none --tmpfs /tmp -v "$PWD:/data" -u "$(id -u)" cellseg count slide.svs

FROM python:3.12-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    MPLCONFIGDIR=/tmp/matplotlib NUMBA_CACHE_DIR=/tmp/numba HOME=/tmp
RUN useradd --create-home --uid 1000 cellseg
WORKDIR /src

FROM base AS cuda
RUN pip install "torch>=2.5" "torchvision>=0.20"
COPY . .
RUN pip install ".[export,remote,cluster]" && rm -rf /src/*
USER cellseg
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=2m CMD ["cellseg", "doctor", "--no-window"]
ENTRYPOINT ["cellseg"]
CMD ["--help"]

FROM base AS cpu
RUN pip install "torch>=2.5" "torchvision>=0.20" --index-url https://download.pytorch.org/whl/cpu
COPY . .
RUN pip install ".[export,remote,cluster]" && rm -rf /src/*
USER cellseg
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=2m CMD ["cellseg", "doctor", "--no-window"]
ENTRYPOINT ["cellseg"]
CMD ["--help"]
