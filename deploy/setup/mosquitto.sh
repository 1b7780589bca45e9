#!/bin/sh
# Tests want Mosquitto, wrong clocks, and faults. Install them where root, else say how; tests without them skip with a reason.
PATH="$PATH:/usr/sbin:/usr/local/sbin"
missing=
command -v mosquitto >/dev/null 2>&1 || missing="mosquitto"
command -v faketime >/dev/null 2>&1 || missing="$missing faketime"
command -v strace >/dev/null 2>&1 || missing="$missing strace"
command -v mkfs.ext4 >/dev/null 2>&1 || missing="$missing e2fsprogs"
[ -f /usr/include/mosquitto_plugin.h ] || missing="$missing mosquitto-dev"  # for the broker's guard, as the next two
[ -f /usr/include/mosquitto.h ] || missing="$missing libmosquitto-dev"
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing $missing (apt-get) for the tests with a real broker ..."
  # No service may start by itself: the tests start their own broker on loopback.
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "Not here: $missing. Tests that need them will skip. sudo apt-get install $missing"
