#!/usr/bin/env bash
# A Docker engine and a Mosquitto image for the tests, on a Debian machine that has neither.
#
#   scripts/docker_for_tests.sh start    prints the image's name on stdout; everything else goes to stderr
#   scripts/docker_for_tests.sh stop     ends the engine that `start` started, and no other
#
# An engine that answers is used as it is. The official image is used where it is here or can be pulled; where no
# container registry is reachable, an image of Debian's own mosquitto package is made from the machine's apt sources.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/debian.sh

official=eclipse-mosquitto:2
built=mlade-mosquitto:test
base=mlade-debian:test
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
    if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
        install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    fi
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar -C "$root" -c . | docker import - "$base" >/dev/null
    rm -rf "$root"
}

build_image() {
    have_image "$base" || build_base
    say "building $built from Debian's mosquitto package"
    docker build --network host --build-arg "BASE=$base" --tag "$built" mosquitto >"$state/build.log" 2>&1 </dev/null || {
        tail -20 "$state/build.log" >&2
        fail "docker build failed; the end of its log is above"
    }
}

start() {
    mkdir -p "$state"
    started_here || rm -f "$pidfile"
    start_engine
    if have_image "$official" || { say "pulling $official" && timeout 30 docker pull -q "$official" >/dev/null 2>&1; }; then
        echo "$official"
        return
    fi
    have_image "$built" || build_image
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
