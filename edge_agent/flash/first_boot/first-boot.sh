#!/bin/sh
# Puts fedistill's agent on a device that `edge-agent flash` has prepared. Lies beside what it installs:
#
#   etc/  agent.toml, certificates, token, bundle  ->  /etc/fedistill
#   fedistill-agent_*.deb                          ->  installed, after the settings
#   SHA256SUMS                                         of all of it
#
#   first-boot.sh arrange      what the image's own mechanism runs: a service that does the rest, at each boot until done
#   first-boot.sh install      what that service runs
#
# Every step may be cut by a power failure and is done again; secrets leave this folder once they are in /etc.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
settings=/etc/fedistill
user=fedistill
unit=fedistill-first-boot.service

case "$here" in
*/fedistill) ;; # what is deleted below is deleted here
*)
    echo "first-boot.sh: belongs into a folder fedistill, not $here" >&2
    exit 64
    ;;
esac

say() {
    echo "fedistill: $*"
    echo "$*" >"$here/status.txt" || true
}

arrange() {
    sed "s|@here@|$here|g" "$here/first-boot.service" >/etc/systemd/system/.$unit
    mv /etc/systemd/system/.$unit /etc/systemd/system/$unit
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf ../$unit /etc/systemd/system/multi-user.target.wants/$unit
    sync
    # Where multi-user.target comes next anyway (firstrun.sh reboots), nothing is started here.
    if [ "${1:-}" = now ]; then
        systemctl daemon-reload
        systemctl start --no-block $unit
    fi
}

# The service and its folder are theirs who may not read secrets; the agent's user must be able to, when dpkg starts it.
make_user() {
    id $user >/dev/null 2>&1 || adduser --quiet --system --group --no-create-home --home /var/lib/$user $user
}

place() {
    mkdir -p $settings
    chown root:$user $settings
    chmod 0750 $settings
    (cd "$here/etc" && find . -type d) | while IFS= read -r folder; do
        install -d -o root -g $user -m 0750 "$settings/$folder"
    done
    (cd "$here/etc" && find . -type f) | while IFS= read -r file; do
        case "$file" in
        *.key | *.token | *.password) owner=$user mode=0600 ;;
        *) owner=root mode=0640 ;;
        esac
        install -o $owner -g $user -m $mode "$here/etc/$file" "$settings/$file.new"
        mv "$settings/$file.new" "$settings/$file"
    done
    sync
}

# Returns whether the package is in. Asked with `if`, where the shell goes on after a command that failed.
put_in() {
    set -- "$here"/fedistill-agent_*.deb
    cp "$1" /var/cache/fedistill-agent.deb || return 1 # not in reach of what apt thinks of a FAT partition
    export DEBIAN_FRONTEND=noninteractive
    dpkg --force-confold --configure --pending || true # what a power cut has left half done
    # apt waits for whoever else installs; without a list of packages it goes by what is there.
    apt-get install --yes --no-install-recommends --allow-downgrades --option DPkg::Lock::Timeout=600 \
        --option Dpkg::Options::=--force-confold /var/cache/fedistill-agent.deb || return 1
    rm -f /var/cache/fedistill-agent.deb
    [ "$(dpkg-query --show --showformat='${Status}' fedistill-agent)" = "install ok installed" ]
}

clear_away() {
    rm -rf "${here:?}/etc" "$here"/fedistill-agent_*.deb "$here/SHA256SUMS"
    rm -f /etc/systemd/system/multi-user.target.wants/$unit
    sync
    say "installed $(dpkg-query --show --showformat='${Package} ${Version}' fedistill-agent)"
}

install_all() {
    if [ -f "$here/installed" ]; then # cut while clearing away
        clear_away
        return
    fi
    say "checking what the card holds"
    if ! (cd "$here" && sha256sum --check --quiet SHA256SUMS); then
        say "the card is damaged: what it holds is not what was written. Flash it again, or another one"
        return 2 # no use in trying again: RestartPreventExitStatus
    fi
    make_user
    place
    say "installing"
    if ! put_in; then
        say "the package could not be installed: journalctl -u $unit; tried again every minute and at each boot"
        return 1
    fi
    : >"$here/installed"
    sync
    clear_away
}

case "${1:-}" in
arrange) arrange "${2:-}" ;;
install) install_all ;;
*)
    echo "usage: first-boot.sh arrange [now] | install" >&2
    exit 64
    ;;
esac
