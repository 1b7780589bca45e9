#!/bin/sh
# fedistill-setup FEDERATION HOST [--trust none]: authority, broker and settings of a new server, once.
#
# HOST is the name by which devices find this machine. The root's key goes to /root-key, which is to be taken away.
set -eu
[ $# -ge 2 ] || { echo "usage: fedistill-setup FEDERATION HOST [--trust none]" >&2; exit 64; }
federation=$1 host=$2
shift 2
state=/var/lib/fedistill-server settings=/etc/fedistill-server
if [ -e "$state/pki" ] || [ -e "$settings/federation.toml" ]; then
  echo "There is a server here already: nothing was changed." >&2
  exit 73
fi

broker-server ca init "$state/pki" --fleet "$federation" --root-key /root-key/root.key
broker-server ca sign "$state/pki" broker --role broker --host "$host" --host localhost --out "$state/broker"
broker-server ca sign "$state/pki" aggregator --role aggregator --out "$settings/tls"
broker-server ca sign "$state/pki" https --role broker --host "$host" --out "$settings/tls"
broker-server mosquitto "$state/broker" --federation "$federation" --aggregator aggregator \
  --crl "$state/pki/crl.pem" --port "${BROKER_PORT:-8883}" --user fedistill-server
broker-server init "$settings" --federation "$federation" "$@"
cat <<END

Take root-key/root.key away: nothing that runs needs it. Then put bundle and public set of \`model-export build\` into
artifacts/, and: docker compose up --detach
END
