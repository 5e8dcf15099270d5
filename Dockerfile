# The processor. Its configuration, model and filter are mounted on /config, its state is a volume:
#   docker build -t mlade .
#   docker run --network host -v ./plant:/config:ro -v mlade-state:/state mlade
ARG BASE=python:3.13-slim
FROM ${BASE}

WORKDIR /opt/mlade
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY processor processor
RUN python3 -m venv venv \
    && venv/bin/pip install --no-cache-dir --only-binary :all: --constraint constraints.txt . \
    && useradd --uid 10001 --no-create-home mlade \
    && install -d -o mlade -g mlade /state /samples

# The state is kept in /state whatever the configuration says; a files bridge belongs on /samples.
ENV PATH=/opt/mlade/venv/bin:$PATH PYTHONUNBUFFERED=1 MLADE_STATE_DIR=/state
USER mlade
VOLUME /state /samples
STOPSIGNAL SIGTERM
ENTRYPOINT ["mlade"]
CMD ["run", "-c", "/config/processor.yaml"]
