# shellcheck shell=sh disable=SC2034,SC2154,SC2317
# nodes.sh - three nodes a, b, c, each in a network namespace of its own with a member of an etcd cluster. Sourced after lib.sh by scenarios that play them.
#
#     namespace NS-sw: a bridge        NS-a, NS-b, NS-c: eth0 = 10.99.0.1, .2, .3; peer on the bridge: wire-a, wire-b, wire-c
#
#   DATA/a ...  the nodes' data        T/node-a.log, T/etcd-a.log: what they say        NODE_OPTIONS: of every `weir up`        ETCD_OPTIONS: of every etcd
GW=8000 ADMIN=7070 # each node has a network of its own
NS=w$(printf '%s' "$NAME" | cut -c1-4)$$
SECRETS=$T/secrets.key
NODE_OPTIONS=${NODE_OPTIONS:-}
ETCD_OPTIONS=${ETCD_OPTIONS---unsafe-no-fsync}

# Ends the scenario where namespaces can't be made.
nodes_need_root() {
    if [ "$(id -u)" != 0 ] || ! ip netns add "$NS-probe" 2>/dev/null; then
        skip "network namespaces need root"
        finish
        exit
    fi
    ip netns del "$NS-probe"
}

# ---- the network: a bridge in a namespace of its own, one wire to each node ----------------------------------------------------------

net_down() {
    for n in a b c sw; do ip netns del "$NS-$n" 2>/dev/null; done
}
net_up() {
    ip netns add "$NS-sw" && ip -n "$NS-sw" link add br0 type bridge && ip -n "$NS-sw" link set br0 up || return 1
    i=0
    for n in a b c; do
        i=$((i + 1))
        ip netns add "$NS-$n" && ip -n "$NS-$n" link add eth0 type veth peer name "wire-$n" netns "$NS-sw" && ip -n "$NS-sw" link set "wire-$n" master br0 up || return 1
        ip -n "$NS-$n" addr add "10.99.0.$i/24" dev eth0 && ip -n "$NS-$n" link set eth0 up && ip -n "$NS-$n" link set lo up || return 1
    done
}
on() { # NODE COMMAND...: in its network; /sys stays as it is
    on_node=$1
    shift
    nsenter --net="/var/run/netns/$NS-$on_node" "$@"
}
ip_of() { case $1 in a) echo 10.99.0.1 ;; b) echo 10.99.0.2 ;; *) echo 10.99.0.3 ;; esac; }
end_all_and_net() {
    end_status=$?
    trap - EXIT INT TERM
    for pid in $PIDS; do end_one "$pid"; done
    net_down
    rm -rf "$DATA"
    [ "$end_status" -ne 0 ] || rm -rf "$T"
    exit "$end_status"
}
trap end_all_and_net EXIT

# Certificates of one CA, and the key that all nodes have for Secrets.
nodes_keys() {
    {
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$T/ca.key" -out "$T/ca.crt" -days 2 -subj "/CN=$NS"
        for n in a b c; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$T/$n.key" -out "$T/$n.csr" -subj "/CN=$n"
            printf 'subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$n" >"$T/$n.ext"
            openssl x509 -req -in "$T/$n.csr" -CA "$T/ca.crt" -CAkey "$T/ca.key" -CAcreateserial -out "$T/$n.crt" -days 2 -extfile "$T/$n.ext"
        done
    } >"$T/openssl.log" 2>&1
    (umask 077 && head -c 32 /dev/urandom | base64 >"$SECRETS")
}

# ---- etcd and nodes -----------------------------------------------------------------------------------------------------------------------

MEMBERS="a=http://10.99.0.1:2380,b=http://10.99.0.2:2380,c=http://10.99.0.3:2380"
JOIN="etcd://10.99.0.1:2379,10.99.0.2:2379,10.99.0.3:2379"
etcd_start() { # NODE: its process is in $BG
    # shellcheck disable=SC2086 # options
    background "$T/etcd-$1.log" nsenter --net="/var/run/netns/$NS-$1" etcd --name "$1" --data-dir "$DATA/etcd-$1" $ETCD_OPTIONS --pre-vote --heartbeat-interval 100 --election-timeout 1000 \
        --listen-client-urls "http://$(ip_of "$1"):2379" --advertise-client-urls "http://$(ip_of "$1"):2379" --listen-peer-urls "http://$(ip_of "$1"):2380" \
        --initial-advertise-peer-urls "http://$(ip_of "$1"):2380" --initial-cluster "$MEMBERS" --initial-cluster-token "$NS"
}
ctl() { on a env ETCDCTL_API=3 timeout 5 etcdctl --endpoints="10.99.0.1:2379,10.99.0.2:2379,10.99.0.3:2379" "$@"; }
etcd_well() { ctl endpoint health; }

up() { # NODE [FILE]: its process is in $BG
    up_node=$1
    shift
    # shellcheck disable=SC2086 # options
    background "$T/node-$up_node.log" nsenter --net="/var/run/netns/$NS-$up_node" "$WEIR" up --data "$DATA/$up_node" --name "$up_node" --join "$JOIN" --node-listen "$(ip_of "$up_node"):7071" \
        --node-cert "$T/$up_node.crt" --node-key "$T/$up_node.key" --node-ca "$T/ca.crt" --secrets-key "$SECRETS" --locality "r/z$up_node" --etcd off --workers 1 $NODE_OPTIONS "$@"
}
w() { # NODE COMMAND ARGUMENT...
    w_node=$1 w_command=$2
    shift 2
    "$WEIR" "$w_command" --data "$DATA/$w_node" "$@"
}
ready_at() { on "$1" curl -fsS -m 2 "http://127.0.0.1:$ADMIN/readyz"; }
nodes_are() { [ "$(w "$1" get nodes -o json | jq -r '[.items[].metadata.name] | sort | join(" ")')" = "$2" ]; }
pid_is() { printf '%s\n' "$BG" >"$T/$1.pid"; }
pid_of() { cat "$T/$1.pid"; }

# Three nodes; a has the manifests of this file or folder.
nodes_start() {
    for n in a b c; do
        etcd_start "$n"
        pid_is "etcd-$n"
    done
    check "three etcd-servers are one cluster" wait_for 20 etcd_well
    up a "$1"
    pid_is a
    for n in b c; do
        up "$n"
        pid_is "$n"
    done
    for n in a b c; do check "node $n is ready" wait_for 40 ready_at "$n"; done
}
