# For scripts that test packages: counted steps, a Debian root, and machines booted from it. Sourced by bash.
# shellcheck shell=bash

passed=0 failed=0 skipped=0
say() { printf '\n-- %s\n' "$*"; }
ok() { passed=$((passed + 1)); printf 'ok   %s\n' "$1"; }
bad() { failed=$((failed + 1)); printf 'FAIL %s\n' "$1"; [ $# -lt 2 ] || printf '%s\n' "$2" | sed 's/^/     /'; }
skip() { skipped=$((skipped + 1)); printf 'SKIP %s\n' "$1"; }
# step NAME COMMAND...: right when the command ends with 0; what it printed is shown when not.
step() {
    local name=$1 printed
    shift
    if printed=$("$@" 2>&1); then ok "$name"; else bad "$name" "$printed"; return 1; fi
}
# silent NAME COMMAND...: right when it prints nothing at all, whatever its status.
silent() {
    local name=$1 printed
    shift
    printed=$("$@" 2>&1)
    if [ -z "$printed" ]; then ok "$name"; else bad "$name" "$printed"; fi
}
# same NAME WANTED GOT
same() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1" "wanted $2, got $3"; fi; }
# await SECONDS COMMAND...: until it succeeds.
await() {
    local left=$(($1 * 5))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.2
    done
}

# --- a root of Debian ------------------------------------------------------------------------------------------------

in_root=systemd,systemd-sysv,iproute2,procps,netcat-openbsd,ncat,curl,openssl,man-db,jq,gzip

# fresh_root FOLDER: a minimal Debian of the release that this machine has, from a copy that is kept in $cache.
fresh_root() {
    local kept=$cache/debian-root.tar mirror release
    if [ ! -s "$kept" ]; then
        release=$(. /etc/os-release && echo "$VERSION_CODENAME")
        mirror=$(apt-get indextargets --format '$(SITE)' "Codename: $release" 2>/dev/null | sort -u | sed -n 1p)
        rm -rf "$cache/debian-new"
        # It ends with an error beside what it made when the machine lets it do without something; what counts is dpkg.
        debootstrap --variant=minbase --include="$in_root" "$release" "$cache/debian-new" "$mirror" >"$cache/debootstrap.log" 2>&1 || return 1
        tar -C "$cache/debian-new" -cf "$kept.new" . && mv "$kept.new" "$kept"
        rm -rf "$cache/debian-new"
    fi
    rm -rf "$1"
    mkdir -p "$1" && tar -C "$1" -xpf "$kept"
}

# --- machines: systemd as the first process of a container -----------------------------------------------------------

machines=()
# Several machines in one control group see each other's services, and take them apart: each is born in one of its own.
own_group() {
    local tree
    for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
        if [ -w "$tree/cgroup.procs" ] && mkdir -p "$tree/holdfast-test-$1" 2>/dev/null; then
            echo "$BASHPID" >"$tree/holdfast-test-$1/cgroup.procs" 2>/dev/null
        fi
    done
}
# boot NAME FOLDER [OPTIONS OF systemd-nspawn]: starts a machine with a network of its own; inside_NAME is its first process.
boot() {
    local name=$1 folder=$2 leader
    shift 2
    (
        own_group "$name"
        exec systemd-nspawn --quiet --directory="$folder" --machine="$name" --register=no --keep-unit --console=pipe --boot "$@"
    ) </dev/null >"$cache/$name.console" 2>&1 &
    machines+=("$!")
    local parent=$!
    await 20 pgrep -P "$parent" || return 1
    leader=$(pgrep -P "$parent" | sed -n 1p)
    eval "inside_$name=$leader"
    # shellcheck disable=SC2016
    await 60 on "$name" sh -c 'case $(systemctl is-system-running) in running | degraded) ;; *) exit 1 ;; esac'
}
# on NAME COMMAND...: runs it in that machine.
on() {
    local leader=inside_$1
    shift
    nsenter --target "${!leader}" --mount --uts --ipc --net --pid --cgroup -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TERM=dumb "$@"
}
end_machines() {
    local parent
    for parent in "${machines[@]}"; do
        pgrep -P "$parent" | xargs -r kill -9 2>/dev/null
        kill -9 "$parent" 2>/dev/null
        wait "$parent" 2>/dev/null
    done
    machines=()
}
