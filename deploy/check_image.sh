#!/bin/bash
# Run an image's root file system as its user, with a read-only root: check_image.sh ROOT, in a mount and a pid namespace
# of its own. Where the image has models, asks `sangha up` for a turn, and another worker for its state.
set -euo pipefail

root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=0700,uid=10001,gid=10001 tmpfs "$root/data"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

in_image() { chroot --userspec=10001:10001 "$root" env -i HOME=/data PATH=/app/.venv/bin:/usr/bin:/bin SANGHA_DATA_DIR=/data "${@}"; }

[[ $(in_image id -u) == 10001 ]]
! in_image touch /app/written 2>/dev/null || { echo "The root can be written" >&2; exit 1; }
for program in cc gcc pip make; do
    ! in_image sh -c "command -v $program" >/dev/null || { echo "The image has $program" >&2; exit 1; }
done
in_image sangha --version

try_up() {
    in_image sangha up --port 0 >"$root/tmp/up" 2>&1 &
    for _ in $(seq 600); do
        address=$(sed -n 's/^Sangha is listening at \(\S*\).*/\1/p' "$root/tmp/up")
        [[ -n $address ]] && break
        kill -0 $! 2>/dev/null || break
        sleep 0.2
    done
    [[ -n $address ]] || { cat "$root/tmp/up" >&2; exit 1; }
    grep '^Ready after' "$root/tmp/up"
    in_image python - "$address" <<'PYTHON'
import json, sys, urllib.request

def post(path, body, **headers):
    request = urllib.request.Request(sys.argv[1] + path, json.dumps(body).encode(), {"content-type": "application/json", **headers})
    return json.load(urllib.request.urlopen(request, timeout=60))

token = post("/signup", {"email": "me@example.com", "password": "correct horse battery staple"})["token"]
answer = post("/v1/responses", {"model": "default", "input": "Hello"}, authorization=f"Bearer {token}")
print("A turn:", answer["status"])
assert answer["status"] == "completed"
PYTHON
}

try_worker() {
    in_image SANGHA_METRICS_ADDRESS=127.0.0.1:9000 sangha worker tools >"$root/tmp/worker" 2>&1 &
    in_image python - <<'PYTHON' || { cat "$root/tmp/worker" >&2; exit 1; }
import time, urllib.request

for _ in range(300):
    try:
        print("A worker:", urllib.request.urlopen("http://127.0.0.1:9000/readyz", timeout=5).read().decode())
        break
    except OSError:
        time.sleep(0.2)
else:
    raise SystemExit("The worker is not ready")
PYTHON
}

if compgen -G "$root/app/.venv/share/sangha/*.gguf" >/dev/null; then
    try_up
    try_worker
    kill -TERM $(jobs -p)
    wait
else
    echo "The image has no models: \`sangha up\` is not tried"
fi
