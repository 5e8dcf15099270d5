# Sourced by the other scripts: packages of the machine's Debian, or a relative of it.

# Debian keeps daemons where a user's PATH, and a bare root's, may not reach.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# install_missing COMMAND=PACKAGE...: installs the packages whose command is not there. Returns 1, with a sentence on
# stderr, when that is not possible.
install_missing() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    [[ ${#missing[@]} -gt 0 ]] || return 0
    install_packages "${missing[@]}"
}

install_packages() {
    local log
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "Missing: $*. Install it and try again; on Debian or Ubuntu: sudo apt-get install $*" >&2
        return 1
    fi
    echo "installing $* with apt-get" >&2
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } \
        >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        echo "apt-get could not install $*; the end of what it said is above" >&2
        return 1
    fi
    rm -f "$log"
}

# take_from PACKAGE PATH TARGET: one file out of a package that is not installed, for programs that come with a daemon.
take_from() {
    local place
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "Missing: ${2##*/}. Install it and try again; Debian's package $1 has it." >&2
        return 1
    fi
    echo "taking ${2##*/} out of Debian's package $1" >&2
    place=$(mktemp -d)
    if (
        cd "$place"
        apt-get download -q "$1" || { apt-get update -q && apt-get download -q "$1"; } || exit
        dpkg-deb --fsys-tarfile "$1"_*.deb | tar -x ".$2"
    ) >"$place/log" 2>&1 </dev/null; then
        mkdir -p "$(dirname "$3")"
        mv "$place$2" "$3"
        rm -rf "$place"
    else
        tail -n 20 "$place/log" >&2
        rm -rf "$place"
        echo "${2##*/} could not be had; the end of what was said is above" >&2
        return 1
    fi
}
