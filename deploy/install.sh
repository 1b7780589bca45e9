#!/bin/sh
# install.sh [agent|server]: installs, or upgrades to, the package beside it that is for this machine.
#
# Beside it lie the packages of a release and their SHA256SUMS. Nothing else is fetched but what the packages ask of
# Debian; a device that is offline and has Python needs nothing.
set -eu
fail() { echo "install.sh: $1" >&2; exit "${2:-1}"; }

what=${1:-agent}
case "$what" in agent | server) ;; *) fail "agent or server, not $what" 64 ;; esac
here=$(cd "$(dirname "$0")" && pwd)
command -v dpkg >/dev/null 2>&1 || fail "this system has no Debian packages: docs/packages.md" 69
machine=$(dpkg --print-architecture)
case "$machine" in
  arm64 | amd64) ;;
  armhf | armel | i386) fail "$machine is a 32-bit system, and there is no onnxruntime for it: flash a 64-bit one" 69 ;;
  *) fail "there is no package for $machine" 69 ;;
esac
python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || fail "this system has no python3" 69

package=
for candidate in "$here/fedistill-${what}_"*"+py${python}_${machine}.deb"; do
  [ -f "$candidate" ] || continue
  version=$(dpkg-deb --field "$candidate" Version)
  if [ -z "$package" ] || dpkg --compare-versions "$version" gt "$newest"; then
    package=$candidate newest=$version
  fi
done
[ -n "$package" ] || fail "no fedistill-$what for Python $python on $machine in $here" 66
name=$(basename "$package")
[ -f "$here/SHA256SUMS" ] || fail "SHA256SUMS is not in $here: who says that $name is whole?" 66
line=$(grep -F "  $name" "$here/SHA256SUMS") || fail "$name does not stand in SHA256SUMS" 65
(cd "$here" && echo "$line" | sha256sum --check --status -) || fail "$name is not what SHA256SUMS says: fetch it again" 65
[ "$(id -u)" = 0 ] || fail "needs root: sudo sh $0 $what" 77

echo "fedistill-$what $newest"
# Where nothing is lacking apt asks no server: it works offline.
DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --allow-downgrades "$package"
case "$what" in
  agent) echo "Next: sudo edge-agent init /etc/fedistill --device NAME --federation NAME; then docs/agent.md" ;;
  server) echo "Next: sudo broker-server init /etc/fedistill-server --federation NAME; then docs/packages.md" ;;
esac
