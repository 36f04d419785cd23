#!/bin/bash
# EMR's bootstrap action: installs the project and its locked dependencies, and starts the worker pool as a service.
#
#     bootstrap.sh s3://BUCKET/PREFIX SHA256 [NAME=VALUE ...]
#
# SHA256 is of the file SHA256SUMS, which lists everything else; whatever is not what it says ends the node, and with
# it the cluster. NAME=VALUE are variables of the workers' environment. A second run changes nothing that is right.
set -euo pipefail

prefix="$1"
sums="$2"
shift 2

user=fraud-detection
python="${FRAUD_PYTHON:-python3.11}"
# Seconds that the pool has to start its first worker.
patience="${FRAUD_PATIENCE:-60}"
# A test installs below a directory of its own; on a node this is empty.
root="${FRAUD_ROOT:-}"
base="$root/opt/fraud-detection"
release="$base/$sums"
files="$release/files"
unit=fraud-workers.service
port=50000

say() {
    echo "bootstrap: $*" >&2
}

fetch() {  # one file, by its digest and name
    aws s3 cp --only-show-errors "$prefix/$1/$2" "$files/$2"
}

download() {
    sudo mkdir -p "$files"
    sudo chown "$(id -u)" "$files"
    fetch "$sums" SHA256SUMS
    echo "$sums  $files/SHA256SUMS" | sha256sum --check --quiet
    # Eight at a time: each call of the command-line tool takes a second before it does anything.
    export prefix files
    export -f fetch
    # shellcheck disable=SC2016 # they are the inner shell's to expand
    xargs -P 8 -L 1 bash -euc 'fetch "$1" "$2"' fetch < "$files/SHA256SUMS"
    (cd "$files" && sha256sum --check --strict --quiet SHA256SUMS)
}

install() {
    command -v "$python" > /dev/null || sudo dnf install --assumeyes --quiet "$python"
    id "$user" > /dev/null 2>&1 || sudo useradd --system --no-create-home --shell /sbin/nologin "$user"
    sudo rm -rf "$release/venv"
    sudo "$python" -m venv "$release/venv"
    local pip=(sudo "$release/venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-index --no-deps)
    "${pip[@]}" --require-hashes --find-links "$files" --requirement "$files/requirements.txt"
    "${pip[@]}" "$files"/fraud_detection_beam-*.whl
    sudo "$release/venv/bin/python" -m pip --disable-pip-version-check check
    sudo touch "$release/complete"
}

start() {
    printf '%s\n' "$@" | sudo tee "$base/environment" > /dev/null
    sudo ln -sfn "$release/venv" "$base/current"
    sudo mkdir -p "$root/etc/systemd/system" "$root/etc/sysctl.d"
    # The pool's port is among those that the kernel lends to clients: one of them could have it when the pool starts.
    echo "net.ipv4.ip_local_reserved_ports = $port" | sudo tee "$root/etc/sysctl.d/90-fraud-detection.conf" > /dev/null
    sudo sysctl --quiet --load "$root/etc/sysctl.d/90-fraud-detection.conf"
    sudo cp "$files/$unit" "$root/etc/systemd/system/$unit"
    sudo systemctl daemon-reload
    sudo systemctl enable --quiet "$unit"
    sudo systemctl restart "$unit"
}

check() {  # that a worker really starts, as it will for a TaskManager
    if ! "$base/current/bin/python" -m runners.emr.check_node "127.0.0.1:$port" "$patience"; then
        sudo systemctl status --no-pager "$unit" >&2 || true
        sudo journalctl --no-pager --lines 50 --unit "$unit" >&2 || true
        say "the worker pool starts no workers"
        return 1
    fi
}

if [ ! -e "$release/complete" ]; then
    say "installing $sums"
    download
    install
fi
start "$@"
check
say "the worker pool starts workers, on port $port"
