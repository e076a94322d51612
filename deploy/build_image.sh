#!/bin/bash
# Build the image with buildah, without a daemon, on a base of Debian's packages, and write its bill of materials:
# build_image.sh [TARGET]. The result is in buildah's own storage, and as an OCI archive in build/image/.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${1:-sangha-models}
out=$PWD/build/image
bin=${VENV:-.venv}/bin
mkdir -p "$out"

missing=()
for program in buildah mmdebstrap; do command -v "$program" >/dev/null || missing+=("$program"); done
if ((${#missing[@]})); then
    echo "Missing: ${missing[*]}. On Debian and Ubuntu: apt install ${missing[*]}. With Docker instead: docker build --target $target ." >&2
    exit 1
fi
[[ $(id -u) == 0 ]] || { echo "Run as root: the base system is made with users of its own." >&2; exit 1; }

# Without overlay file systems, BUILDAH_DRIVER=vfs copies the whole tree for each layer.
run_buildah() { command buildah --storage-driver "${BUILDAH_DRIVER:-overlay}" --root "$out/storage" --runroot "$out/run" "$@"; }

if [[ ! -s $out/base.tar ]]; then
    echo "Making the base system from Debian's packages"
    mmdebstrap --quiet --mode=root --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$out/base.new" >/dev/null
    mv "$out/base.new" "$out/base.tar"
fi
if ! run_buildah inspect --type image localhost/sangha-base >/dev/null 2>&1; then
    container=$(run_buildah from scratch)
    run_buildah add --quiet "$container" "$out/base.tar" / >/dev/null
    run_buildah commit --quiet --rm "$container" localhost/sangha-base >/dev/null
fi

# pip reaches the packages as it does on this machine, by secrets that exist during the build only.
"$bin/python" deploy/pip_secret.py >"$out/pip.conf"
trap 'rm -f "$out/pip.conf"' EXIT
echo "Building $target"
run_buildah build --layers --isolation chroot --quiet --file Dockerfile --target "$target" --tag "localhost/$target" \
    --build-arg BASE=localhost/sangha-base --build-arg REVISION="$(git rev-parse HEAD)" \
    --secret id=pip.conf,src="$out/pip.conf" --secret id=ca.pem,src="${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}" .

echo "Running it as user 10001, with a read-only root"
container=$(run_buildah from --pull-never "localhost/$target")
root=$(run_buildah mount "$container")
unshare --mount --pid --fork --kill-child bash deploy/check_image.sh "$root"
du -sh --apparent-size "$root" | awk '{ print "Size: " $1 }'
run_buildah umount "$container" >/dev/null
run_buildah rm "$container" >/dev/null

"$bin/cyclonedx-py" requirements requirements/runtime.txt --output-reproducible --output-file "$out/sbom.json"
echo "Bill of materials: ${out#"$PWD"/}/sbom.json, $(grep -c '"bom-ref": "requirements-' "$out/sbom.json") packages"
run_buildah push --quiet "localhost/$target" "oci-archive:$out/$target.tar"
echo "Image: ${out#"$PWD"/}/$target.tar"
