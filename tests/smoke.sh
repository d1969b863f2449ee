#!/bin/sh
# Speaks to holdfastd with nothing but nc, printf, od and timeout (openssl for TLS), and shows each byte's meaning.
#
#   tests/smoke.sh                      builds nothing: starts target/debug/holdfastd, or $HOLDFASTD, on free ports
#   RPC=host:port HTTP=host:port tests/smoke.sh     speaks to a server that runs already (steps that need another
#                                                   configuration are left out, and said so)
#   NC=ncat tests/smoke.sh              uses another nc (OpenBSD's and ncat are known to work)
#
# Each step prints `ok` and its name, or the bytes wanted and the bytes got. The first difference ends it.
# Requirements R6.28, R6.29, R6.30.
set -u

NC=${NC:-nc}
HOLDFASTD=${HOLDFASTD:-$(dirname "$0")/../target/debug/holdfastd}
work=$(mktemp -d)
pids=
stop() {
    # The relay's pipes are held open here: only without us do its ends see theirs.
    exec 8>&- 9>&-
    for pid in $pids; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' INT TERM

# --- msgpack, as Go peers write it ---------------------------------------------------------------------------------

byte() { for b in "$@"; do printf '%b' "\\0$(printf %03o "$((b))")"; done; }
# A string: 0xa0 + length up to 31; 0xda and two bytes of length above.
str() {
    n=$(printf %s "$1" | wc -c)
    if [ "$n" -lt 32 ]; then byte $((0xa0 + n)); else byte 0xda $((n / 256)) $((n % 256)); fi
    printf %s "$1"
}
map() { byte $((0x80 + $1)); }         # a map of up to 15 entries
int() { if [ "$1" -lt 128 ]; then byte "$1"; else byte 0xcd $(($1 / 256)) $(($1 % 256)); fi; }
dur() { byte 0xd3; for shift in 56 48 40 32 24 16 8 0; do byte $((($1 >> shift) & 255)); done; }  # int64

# The head of a request: {"Seq": n, "ServiceMethod": name}. Its body follows.
head() { map 2; str Seq; int "$1"; str ServiceMethod; str "$2"; }
# The head of a reply: {"Error": text, "Seq": n, "ServiceMethod": name}.
reply() { map 3; str Error; str "$3"; str Seq; int "$1"; str ServiceMethod; str "$2"; }
# The least options of a read.
region() { map 1; str Region; str global; }

# --- yamux: 00, type, two bytes of flags, four of stream, four of length ----------------------------------------------

frame() { byte 0 "$1" 0 "$2" 0 0 0 "$3" $(($4 >> 24)) $((($4 >> 16) & 255)) $((($4 >> 8) & 255)) $(($4 & 255)); }
DATA=0 WINDOW=1 PING=2
SYN=1 ACK=2 FIN=4
data() { n=$(wc -c <"$2"); frame $DATA 0 "$1" "$n"; cat "$2"; }

hex() { od -An -v -tx1 | tr -d ' \n'; }

# --- talking ------------------------------------------------------------------------------------------------------

ok() { printf 'ok   %s\n' "$1"; }
fail() { printf 'FAIL %s\n  wanted %s\n  got    %s\n' "$1" "$2" "$3"; exit 1; }

# dial ADDRESS: nc with its input held open (descriptor 3) and its output in $work/got.
dial() {
    rm -f "$work/in"; mkfifo "$work/in"; : >"$work/got"
    # ${1%:*} and ${1##*:} are host and port.
    "$NC" "${1%:*}" "${1##*:}" <"$work/in" >"$work/got" 2>/dev/null &
    dialled=$!
    exec 3>"$work/in"
}
hang_up() { exec 3>&-; kill "$dialled" 2>/dev/null; wait "$dialled" 2>/dev/null; }
got() { hex <"$work/got"; }

# await SECONDS COMMAND...: until the command says yes.
await() {
    left=$(($1 * 20)); shift
    while ! "$@"; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || return 1
        sleep 0.05
    done
}
has_bytes() { [ "$(wc -c <"$work/got")" -ge "$1" ]; }
has_text() { grep -aq "$1" "$work/got"; }

# exchange NAME ADDRESS REQUEST-FILE WANTED-FILE: the reply must be these bytes exactly.
exchange() {
    wanted=$(hex <"$4")
    dial "$2"; cat "$3" >&3
    await 10 has_bytes $((${#wanted} / 2))
    answer=$(got); hang_up
    if [ "$answer" = "$wanted" ]; then ok "$1"; else fail "$1" "$wanted" "$answer"; fi
}
# ends NAME ADDRESS REQUEST-FILE SECONDS: the server closes without a byte. With nothing to say, nc only listens: its
# own half stays open, so that it is the server who ends it.
case $("$NC" --version 2>&1) in *Ncat*) listen_only=--recv-only ;; *) listen_only=-d ;; esac
ends() {
    if [ -s "$3" ]; then
        timeout "$4" "$NC" "${2%:*}" "${2##*:}" <"$3" >"$work/got" 2>/dev/null
    else
        timeout "$4" "$NC" $listen_only "${2%:*}" "${2##*:}" >"$work/got" 2>/dev/null
    fi
    [ $? != 124 ]; over=$?
    answer=$(got)
    if [ "$over" = 0 ] && [ -z "$answer" ]; then ok "$1"
    else fail "$1" "the end, without a byte" "${answer:-still open}"; fi
}

# serve NAME OPTIONS...: starts a server on free ports; sets $rpc and $http from its log.
serve() {
    name=$1; shift
    : >"$work/$name.log"
    "$HOLDFASTD" "$@" --rpc 127.0.0.1:0 --http 127.0.0.1:0 2>"$work/$name.log" &
    pids="$pids $!"
    ready() { grep -q 'serving requests' "$work/$name.log"; }
    await 20 ready || { cat "$work/$name.log"; fail "$name starts" "a line that says it serves requests" "none"; }
    rpc=$(sed -n 's/.*listening.* rpc=\([^ ]*\).*/\1/p' "$work/$name.log" | sed -n 1p)
    http=$(sed -n 's/.*listening.* http=\([^ ]*\).*/\1/p' "$work/$name.log" | sed -n 1p)
}

if [ -n "${RPC:-}" ]; then rpc=$RPC http=${HTTP:-127.0.0.1:4646} own=; else own=yes; serve plain --dev; fi
in=$work/request out=$work/reply

# --- first byte 0x01: calls straight on the connection --------------------------------------------------------------

{ byte 1; head 1 Status.Ping; map 0; } >"$in"
{ reply 1 Status.Ping ''; map 0; } >"$out"
exchange '0x01, Status.Ping' "$rpc" "$in" "$out"

{ byte 1; head 1 Status.Leader; region; } >"$in"
{ reply 1 Status.Leader ''; str "$rpc"; } >"$out"
exchange '0x01, Status.Leader names the server' "$rpc" "$in" "$out"

{ byte 1; head 1 Status.Ping; map 0; head 2 Status.Ping; map 0; } >"$in"
{ reply 1 Status.Ping ''; map 0; reply 2 Status.Ping ''; map 0; } >"$out"
exchange '0x01, two calls on one connection' "$rpc" "$in" "$out"

{ byte 1; head 1 Nope.Nothing; map 0; } >"$in"
{ reply 1 Nope.Nothing "rpc: can't find service Nope.Nothing"; map 0; } >"$out"
exchange '0x01, an unknown service is named' "$rpc" "$in" "$out"

# --- 0x03: yamux, each stream a call at once; 0x06: yamux, each stream says 0x01 or 0x05 first ---------------------------

{ head 1 Status.Ping; map 0; } >"$work/call"
{ reply 1 Status.Ping ''; map 0; } >"$work/answer"
{
    byte 3
    frame $WINDOW $SYN 1 0                  # open stream 1
    data 1 "$work/call"
} >"$in"
{
    frame $WINDOW $ACK 1 0                  # taken
    data 1 "$work/answer"
} >"$out"
exchange '0x03, a call on a stream' "$rpc" "$in" "$out"

byte 1 >"$work/says_call"
{
    byte 6
    frame $WINDOW $SYN 1 0
    data 1 "$work/says_call"
    data 1 "$work/call"
} >"$in"
exchange '0x06, a call on a stream' "$rpc" "$in" "$out"

{
    cat "$in"
    frame $WINDOW $FIN 1 0                  # we are done with stream 1
} >"$work/with_fin"
{
    cat "$out"
    frame $WINDOW $FIN 1 0                  # so is the server
} >"$work/with_fin_out"
exchange '0x06, a stream is closed from both sides' "$rpc" "$work/with_fin" "$work/with_fin_out"

{ byte 6; frame $PING $SYN 0 7; } >"$in"    # the value 7 ...
frame $PING $ACK 0 7 >"$out"                # ... comes back
exchange '0x06, a ping is answered' "$rpc" "$in" "$out"

# --- 0x05: one streaming call ------------------------------------------------------------------------------------------

{ byte 5; map 1; str Method; str Event.Stream; map 2; str Region; str global; str Index; int 0; } >"$in"
{ map 1; str Error; str ''; } >"$out"       # the ack; then a heartbeat
wanted=$(hex <"$out")
dial "$rpc"; cat "$in" >&3
await 10 has_text Data; answer=$(got); hang_up
case "$answer" in
"$wanted"*) ok '0x05, Event.Stream is acknowledged and sends its first heartbeat' ;;
*) fail '0x05, Event.Stream' "$wanted..." "$answer" ;;
esac

{ byte 5; map 1; str Method; str Nope.Stream; } >"$in"
{ map 1; str Error; str 'Unknown rpc method: "Nope.Stream"'; } >"$out"
exchange '0x05, an unknown method is named' "$rpc" "$in" "$out"

# --- what is refused ------------------------------------------------------------------------------------------------

byte 0xff >"$in"
ends 'byte 0xff' "$rpc" "$in" 3
byte 0x04 >"$in"
ends '0x04 while TLS is off' "$rpc" "$in" 3
: >"$in"
ends 'silence, until the handshake time is up' "$rpc" "$in" 8

# --- a query that waits, and a write that wakes it -------------------------------------------------------------------------

node() {                                    # Node.Register of a small node
    byte 1; head 1 Node.Register
    map 2; str Region; str global; str Node
    map 6; str ID; str "$1"; str SecretID; str "$2"; str Datacenter; str dc1; str Name; str smoke
    str Status; str initializing
    str Attributes; map 1; str nomad.version; str 2.0.5
}
secret=5d0ac4a3-07d9-4fa9-a8cb-1f7b4ce4f5b2
node 11111111-1111-4111-8111-111111111111 $secret >"$in"
dial "$rpc"; cat "$in" >&3; await 10 has_text HeartbeatTTL || fail 'a node registers' HeartbeatTTL "$(got)"
hang_up; ok 'a node registers'

# Node.GetNode of a node that is not there, at the current index or above: waits.
other=22222222-2222-4222-8222-222222222222
{
    byte 1; head 1 Node.GetNode
    map 4; str Region; str global; str NodeID; str $other; str MinQueryIndex; int 60000; str MaxQueryTime
    dur 2000000000
} >"$in"
dial "$rpc"; cat "$in" >&3
await 10 has_text KnownLeader || fail 'a blocking query ends at its time' KnownLeader "$(got)"
hang_up; ok 'a blocking query whose index is far ahead ends at its time'

{
    byte 1; head 1 Node.List
    map 3; str Region; str global; str MinQueryIndex; int 1; str MaxQueryTime; dur 0
} >"$in"
dial "$rpc"; cat "$in" >&3; await 10 has_text KnownLeader || fail 'Node.List' KnownLeader "$(got)"
# The index: behind the key "Index", a byte up to 7f, or cc and one, cd and two bytes.
index=$(got | sed -n 's/.*a5496e646578\(cd....\|cc..\|[0-7].\).*/\1/p')
hang_up
case $index in cd*) index=$((0x${index#cd})) ;; cc*) index=$((0x${index#cc})) ;; *) index=$((0x$index)) ;; esac
{
    byte 1; head 1 Node.List
    map 3; str Region; str global; str MinQueryIndex; int "$index"; str MaxQueryTime; dur 60000000000
} >"$in"
dial "$rpc"; cat "$in" >&3; waiting=$dialled
if await 1 has_bytes 1; then fail 'a blocking query waits' 'nothing' "$(got)"; fi
node $other $secret-2 >"$work/second"
mkfifo "$work/in2"; "$NC" "${rpc%:*}" "${rpc##*:}" <"$work/in2" >"$work/got2" 2>/dev/null & writer=$!
exec 4>"$work/in2"; cat "$work/second" >&4
await 10 has_text "$other" || fail 'a write from a second nc wakes it' "$other" "$(got)"
exec 4>&-; kill $writer 2>/dev/null; dialled=$waiting; hang_up
ok 'a blocking query is woken by a write from a second nc'

# --- HTTP -----------------------------------------------------------------------------------------------------------

get() {
    dial "$http"; printf 'GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' "$2" >&3
    await 10 has_text "$3" || fail "$1" "$3" "$(cat "$work/got")"
    hang_up; ok "$1"
}
get 'HTTP, health' /v1/agent/health '{"server":{"message":"ok","ok":true}}'
get 'HTTP, leader' /v1/status/leader "\"$rpc\""
get 'HTTP, metrics for Prometheus' '/v1/metrics?format=prometheus' '^holdfast_rpc_requests_total'
get 'HTTP, a path that is not there' /v1/nope '404'

[ -n "$own" ] || { printf 'left out: limits and TLS (they need servers of their own)\n'; exit 0; }

# --- other configurations ---------------------------------------------------------------------------------------------

cat >"$work/limit.toml" <<TOML
data_dir = "$work/limit"
[limits]
rpc_max_conns_per_client = 26
[rpc]
handshake_timeout = "20s"
TOML
serve limit -c "$work/limit.toml"
n=0
while [ $n -lt 26 ]; do
    mkfifo "$work/hold$n"; "$NC" "${rpc%:*}" "${rpc##*:}" <"$work/hold$n" >/dev/null 2>&1 & pids="$pids $!"
    eval "exec $((n % 5 + 5))>\"$work/hold$n\""
    sleep 60 >"$work/hold$n" & pids="$pids $!"
    n=$((n + 1))
done
counted() {
    printf 'GET /v1/metrics?format=prometheus HTTP/1.0\r\n\r\n' |
        timeout 5 "$NC" "${http%:*}" "${http##*:}" 2>/dev/null | grep -q '^holdfast_rpc_connections_accepted_total 26'
}
await 10 counted || fail '26 connections are let in' 26 'fewer'
: >"$in"
ends 'the 27th connection of an address' "$rpc" "$in" 3

tls=$work/tls; mkdir "$tls"
{
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$tls/ca-key.pem" -out "$tls/ca.pem" -days 2 -subj /CN=ca
    for who in server client; do
        openssl req -newkey rsa:2048 -nodes -keyout "$tls/$who-key.pem" -out "$tls/$who.csr" -subj "/CN=$who.global.nomad"
        printf 'subjectAltName=DNS:%s.global.nomad,DNS:localhost\n' $who >"$tls/$who.ext"
        openssl x509 -req -in "$tls/$who.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca-key.pem" -CAcreateserial -days 2 \
            -extfile "$tls/$who.ext" -out "$tls/$who.pem"
    done
} >/dev/null 2>&1
cat >"$work/tls.toml" <<TOML
data_dir = "$work/tlsdata"
[tls]
rpc = true
ca_file = "$tls/ca.pem"
cert_file = "$tls/server.pem"
key_file = "$tls/server-key.pem"
TOML
serve tls -c "$work/tls.toml"
{ byte 1; head 1 Status.Ping; map 0; } >"$in"
ends 'TLS on: a plain call is refused' "$rpc" "$in" 3
# openssl cannot say 0x04 first; a small relay of two nc does: it writes the byte, then passes bytes both ways.
mkfifo "$work/up" "$work/down"
# Held open by this shell alone, so that a relay which did not start ends nothing.
exec 8<>"$work/up" 9<>"$work/down"
{ { byte 4; cat "$work/up"; } | "$NC" "${rpc%:*}" "${rpc##*:}" >"$work/down" 2>/dev/null; } 8>&- 9>&- & pids="$pids $!"
tls_ping() {
    { cat "$in"; sleep 2; } | timeout 8 openssl s_client -quiet -connect "127.0.0.1:$port" -CAfile "$tls/ca.pem" \
        -cert "$tls/client.pem" -key "$tls/client-key.pem" -servername server.global.nomad 2>"$work/openssl.log"
}
listening() { grep -q ":$(printf %04X "$port") 00000000:0000 0A" /proc/net/tcp; }
# The port is a guess, and somebody may have it: then the next one is tried.
first=${rpc##*:}
for guess in 0 1 2 3 4; do
    port=$(((first + guess * 1009) % 10000 + 20001))
    ! listening || continue
    "$NC" -l 127.0.0.1 "$port" <"$work/down" >"$work/up" 2>/dev/null 8>&- 9>&- & relay=$!; pids="$pids $relay"
    ! await 3 listening || break
    kill "$relay" 2>/dev/null || :
done
listening || fail 'a relay for openssl listens' "port $port" nothing
{ reply 1 Status.Ping ''; map 0; } >"$out"
answer=$(tls_ping | hex); wanted=$(hex <"$out")
if [ "$answer" = "$wanted" ]; then ok 'TLS on: 0x04, a handshake by openssl, and a call inside'
else fail 'TLS on: a call inside' "$wanted" "$answer"; fi
