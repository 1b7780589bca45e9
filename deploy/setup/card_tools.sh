#!/bin/sh
# Tests of `edge-agent flash` make images of cards. Install what that takes where root, else say how; without it they skip.
PATH="$PATH:/usr/sbin:/sbin"
missing=
for pair in mcopy:mtools mkfs.vfat:dosfstools sfdisk:fdisk debugfs:e2fsprogs; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing$missing (apt-get) for the tests of flash ..."
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086 # one word a package
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "Not here:$missing. Tests of flash will skip. sudo apt-get install$missing"
