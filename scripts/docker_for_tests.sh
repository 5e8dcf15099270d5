#!/usr/bin/env bash
# A Docker engine and images for the tests, on a Debian machine that has neither.
#
#   scripts/docker_for_tests.sh start    prints the name of a Mosquitto image on stdout; all else goes to stderr
#   scripts/docker_for_tests.sh stop     ends the engine that `start` started, and no other
#
# An engine that answers is used as it is. The official images are used where they are here or can be pulled; where no
# container registry is reachable, images of Debian's own packages are made from the machine's apt sources: one of
# Mosquitto, and mlade-debian:test and mlade-python:test, with which the Dockerfiles can begin.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

official=eclipse-mosquitto:2
built=mlade-mosquitto:test
base=mlade-debian:test
python=mlade-python:test
state="$PWD/build/docker"
log="$state/dockerd.log"
pidfile="$state/dockerd.pid"

say() { echo "docker_for_tests: $*" >&2; }

fail() {
    say "$*"
    exit 1
}

# wait_until SECONDS COMMAND...: asks again until the command succeeds; fails when the time is over.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

engine_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

started_here() { [[ -f $pidfile ]] && [[ $(cat "/proc/$(cat "$pidfile")/comm" 2>/dev/null) == dockerd ]]; }

start_engine() {
    engine_answers && return
    [[ $EUID -eq 0 ]] || fail "no Docker engine answers, and only root can start one"
    install_missing dockerd=docker.io docker=docker.io iptables=iptables
    say "starting dockerd, log in $log"
    setsid dockerd >"$log" 2>&1 </dev/null &
    echo $! >"$pidfile"
    wait_until 60 engine_answers || {
        tail -20 "$log" >&2
        stop
        fail "dockerd did not answer within 60 s; the end of its log is above"
    }
}

have_image() { docker image inspect "$1" >/dev/null 2>&1; }

# The machine's apt sources, as one-line entries, without third parties' (their keys are not in a minimal Debian).
debian_sources() {
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT) # $(ORIGIN)' 'Created-By: Packages' |
        sed -n 's/ # Debian$//p' | sort -u
}

# A minimal Debian that reads packages the way this machine does: same sources, same apt settings (a proxy, a date
# check turned off), same certificates.
build_base() {
    local root suite mirror proxy
    install_missing debootstrap=debootstrap
    [[ -n $(debian_sources) ]] || apt-get update -q >&2
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(debian_sources | awk -v suite="$suite" '$3 == suite { print $2; exit }')
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    root=$(mktemp -d)
    say "making a base image of Debian $suite with debootstrap"
    # Without a mirror debootstrap uses its own default.
    http_proxy=${proxy:-${http_proxy:-}} debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"} \
        >"$state/debootstrap.log" 2>&1 || {
        tail -20 "$state/debootstrap.log" >&2
        rm -rf "$root"
        fail "debootstrap failed; the end of its log is above"
    }
    [[ -z $mirror ]] || debian_sources >"$root/etc/apt/sources.list"
    apt-config dump Acquire >"$root/etc/apt/apt.conf.d/90machine"
    # As in the official images: no layer holds what apt-get only caches.
    printf '%s\n' 'APT::Keep-Downloaded-Packages "false";' 'Dir::Cache::pkgcache "";' 'Dir::Cache::srcpkgcache "";' \
        >>"$root/etc/apt/apt.conf.d/90machine"
    if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import - "$base" >/dev/null
    rm -rf "$root"
}

# build IMAGE DIRECTORY
build() {
    say "making $1 from Debian's packages"
    docker build --network host --build-arg "BASE=$base" --tag "$1" "$2" >"$state/build.log" 2>&1 </dev/null || {
        tail -20 "$state/build.log" >&2
        fail "docker build failed; the end of its log is above"
    }
}

# Debian's Python. Its package of certificates replaces the machine's, so pip is told where those are.
build_python() {
    local place
    place=$(mktemp -d)
    cp /etc/ssl/certs/ca-certificates.crt "$place/machine.crt" 2>/dev/null || touch "$place/machine.crt"
    cat >"$place/Dockerfile" <<'END'
ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
COPY machine.crt /etc/ssl/machine.crt
ENV PIP_CERT=/etc/ssl/machine.crt
END
    build "$python" "$place"
    rm -rf "$place"
}

start() {
    mkdir -p "$state"
    started_here || rm -f "$pidfile"
    start_engine
    if have_image "$official" || { say "pulling $official" && timeout 30 docker pull -q "$official" >/dev/null 2>&1; }; then
        echo "$official"
        return
    fi
    have_image "$base" || build_base
    have_image "$built" || build "$built" mosquitto
    have_image "$python" || build_python
    echo "$built"
}

stop() {
    started_here || return 0
    local pid
    pid=$(cat "$pidfile")
    kill "$pid"
    wait_until 30 test ! -e "/proc/$pid" || fail "dockerd (process $pid) did not end within 30 s"
    rm -f "$pidfile"
}

case ${1:-} in
    start | stop) "$1" ;;
    *) fail "usage: $0 start|stop" ;;
esac
