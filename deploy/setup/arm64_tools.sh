#!/bin/sh
# What `make test-arm64` and `make test-boot` ask for. Install it where root, else say how; without it they skip.
PATH="$PATH:/usr/sbin:/sbin"
missing=
for pair in mmdebstrap:mmdebstrap qemu-system-aarch64:qemu-system-arm ssh:openssh-client; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || missing="$missing qemu-user-static binfmt-support arch-test"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing$missing (apt-get) for the tests on arm64 ..."
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # one word a package
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "Not here:$missing. Tests on arm64 will skip. sudo apt-get install$missing"
