# The processor. Its configuration, model and filter are mounted on /config, its state is a volume (docs/operate.md):
#   docker build -t mlade .
#   docker run --network host --read-only --tmpfs /tmp -v "$PWD/plant:/config:ro" -v mlade-state:/state mlade
#
# For linux/amd64 and linux/arm64: every dependency has a wheel for both, and nothing is compiled. BASE is any Debian with
# a Python of 3.11 or newer and its venv module. An index of your own: --build-arg PIP_INDEX_URL=…; it stays out of the image.
ARG BASE=python:3.13-slim
FROM ${BASE} AS build
ARG PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST
WORKDIR /opt/mlade
# What changes seldom first: a new version of mlade is a small layer on top of its dependencies.
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip venv \
    && python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > requirements.txt \
    && /opt/pip/bin/pip --python venv/bin/python install --no-cache-dir --only-binary :all: \
        --constraint constraints.txt --requirement requirements.txt \
    # Their own tests, and tools for preparing models.
    && find venv -name tests -type d -prune -exec rm -rf {} + \
    && rm -rf venv/lib/python3*/site-packages/onnxruntime/transformers
COPY README.md LICENSE ./
COPY processor processor
# dashboard, or report: what not every processor needs.
ARG EXTRAS=
RUN PIP_CONSTRAINT=constraints.txt /opt/pip/bin/pip --python venv/bin/python install --no-cache-dir --only-binary :all: \
        ".${EXTRAS:+[${EXTRAS}]}"

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home mlade \
    && install -d -o mlade -g mlade /state /samples
COPY --from=build /opt/mlade/venv /opt/mlade/venv

# The state is kept in /state whatever the configuration says; a files bridge belongs on /samples.
ENV PATH=/opt/mlade/venv/bin:$PATH PYTHONUNBUFFERED=1 MLADE_STATE_DIR=/state
USER mlade
VOLUME /state /samples
STOPSIGNAL SIGTERM
# The process lives and answers; whether it does its job, /readyz says. With `http: null` run it with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["python3", "-c", "\
import os, urllib.request\n\
port = os.environ.get('MLADE_HTTP__LISTEN', ':9464').rpartition(':')[2]\n\
urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=4)"]
ENTRYPOINT ["mlade"]
CMD ["run", "-c", "/config/processor.yaml"]
