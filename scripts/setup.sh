#!/usr/bin/env bash
# Sets up what the make targets need; the Makefile calls it when something has changed.
#
#   scripts/setup.sh runtime       .venv with mlade and what it runs on, as pinned in constraints.txt
#   scripts/setup.sh dev           the same with what tests, linters and most benchmarks need
#   scripts/setup.sh bench         the same with what the benchmark of the selection compares with
#   scripts/setup.sh mosquitto     the broker's binary, for the tests
#   scripts/setup.sh browser       Chromium, for the tests of pages
#   scripts/setup.sh registry      a registry of images, for the tests of models from one, in build/bin
#   scripts/setup.sh promtool      Prometheus's tool, for the tests of alerts, in build/bin
#   scripts/setup.sh constraints   writes constraints.txt anew: the newest versions that pyproject.toml allows
#
# PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

export PIP_DISABLE_PIP_VERSION_CHECK=1

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

# Prints the Python to use. A name on the PATH is not enough: it may be a version manager's placeholder.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do
        if is_recent "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    if [[ -n ${PYTHON:-} ]]; then
        echo "PYTHON=$PYTHON is not a Python of version 3.11 or newer." >&2
    else
        echo "mlade needs Python 3.11 or newer, and none is on the PATH. Install one, or name it: make PYTHON=/path/to/python" >&2
    fi
    return 1
}

# make_venv DIRECTORY: a fresh virtual environment.
make_venv() {
    local python
    python=$(find_python)
    # Debian's Python comes without this module; the package is named for the version where there are several.
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python cannot make virtual environments: it lacks its venv module." >&2
        install_packages "$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
    "$python" -m venv --clear "$1"
}

install_into_venv() {
    is_recent .venv/bin/python || make_venv .venv
    # Through the environment, the pins also hold for the build backend, which pip installs in an environment apart.
    PIP_CONSTRAINT="$PWD/constraints.txt" PIP_BUILD_CONSTRAINT="$PWD/constraints.txt" \
        .venv/bin/python -m pip install --quiet --editable "$1"
}

constraints() {
    local venv=build/constraints
    make_venv "$venv"
    "$venv/bin/python" -m pip install --quiet '.[dev,bench]' editables
    {
        echo "# Every package that mlade, its tests and its build use, at the version they were tested with."
        echo "# Made by \`make constraints\`; do not edit. Holds for Python 3.11 to 3.13."
        "$venv/bin/python" -m pip list --format freeze --exclude mlade --exclude pip --exclude setuptools | LC_ALL=C sort -f
    } >"$venv/constraints.txt"
    mv "$venv/constraints.txt" constraints.txt
}

case ${1:-} in
    runtime) install_into_venv . ;;
    dev) install_into_venv '.[dev]' ;;
    bench) install_into_venv '.[dev,bench]' ;;
    mosquitto) install_missing mosquitto=mosquitto ;;
    browser)
        for name in chromium-browser google-chrome google-chrome-stable chrome; do
            command -v "$name" >/dev/null && exit
        done
        install_missing chromium=chromium
        ;;
    promtool)
        command -v promtool >/dev/null || [[ -x build/bin/promtool ]] ||
            take_from prometheus /usr/bin/promtool "$PWD/build/bin/promtool"
        ;;
    registry) # not installed: it would begin to listen
        command -v docker-registry >/dev/null || [[ -x build/bin/docker-registry ]] ||
            take_from docker-registry /usr/bin/docker-registry "$PWD/build/bin/docker-registry"
        ;;
    constraints) constraints ;;
    *) echo "usage: $0 runtime | dev | bench | mosquitto | browser | promtool | registry | constraints" >&2 && exit 2 ;;
esac
