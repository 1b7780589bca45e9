#!/bin/sh
# Tests of the dashboard want the system's Chromium. Install it where root, else say how; without it they skip with a reason.
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing Chromium (apt-get) for the tests of the dashboard ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0
fi
echo "Chromium is not here: tests of the dashboard in a browser will skip. sudo apt-get install chromium"
