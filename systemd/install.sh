#!/bin/sh
# Installs or upgrades lora_server on this host; see docs/deployment.md. Run it as root.
#
# Each version gets a virtual environment of its own below /opt/lora-server/releases, and
# `current` is switched to it at the end: what fails before leaves the running service alone.
set -eu
umask 022
cd "$(dirname "$0")/.."

HOME_OF_RELEASES=/opt/lora-server/releases
CURRENT=/opt/lora-server/current
SETTINGS=/etc/lora-server
UNITS=/etc/systemd/system
DOC=/usr/share/doc/lora-server
PYTHON=${PYTHON:-python3}

say() { echo "lora-server: $*"; }
stop() { say "$*" >&2; exit 1; }

check_host() {
  [ "$(id -u)" = 0 ] || stop "must be installed by root"
  [ -d /run/systemd/system ] || stop "this host does not run systemd"
  "$PYTHON" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' ||
    stop "needs Python 3.11 with venv: apt-get install python3-venv"
}

build() { # into $release
  release=$HOME_OF_RELEASES/$(date -u +%Y%m%dT%H%M%SZ)
  mkdir -p "$HOME_OF_RELEASES"
  trap 'rm -rf "$release" "$source"' EXIT
  "$PYTHON" -m venv "$release"
  pip="$release/bin/pip --quiet --disable-pip-version-check --no-cache-dir"
  say "installing into $release"
  $pip install --require-hashes -r requirements/build.txt -r requirements/runtime.txt
  # From a copy: a build leaves its traces where it runs.
  source=$(mktemp -d)
  cp -R lora_server setup.py pyproject.toml MANIFEST.in LICENSE README.md CHANGELOG.md config.toml "$source"
  $pip install --no-deps --no-index --no-build-isolation "$source"
  $pip check
  "$release/bin/lora-server" --version
}

add_users_and_folders() {
  install -D -m 644 systemd/lora-server.sysusers.conf /etc/sysusers.d/lora-server.conf
  systemd-sysusers lora-server.conf
  systemd-tmpfiles --create "$PWD/systemd/lora-server.tmpfiles.conf"
}

add_settings() { # never overwrites
  mkdir -p "$SETTINGS/keys"
  if [ ! -e "$SETTINGS/config.toml" ]; then
    # Stored files are for the group loras alone; key, revocations and worker are where the units
    # have them.
    sed -e '/^file_mode /s/"0644"/"0640"/' -e '/^dir_mode /s/"0755"/"2750"/' \
      -e '/^# \(key_file\|revoked_file\|worker_socket\) /s/^# //' \
      config.toml >"$SETTINGS/config.toml"
    say "wrote $SETTINGS/config.toml"
  fi
  [ -e "$SETTINGS/jwt.key" ] || "$release/bin/lora-server" key new "$SETTINGS/jwt.key"
}

add_units() { # sets $socket_changed
  socket_changed=no
  for unit in lora-server.socket lora-eval.socket; do
    cmp -s "systemd/$unit" "$UNITS/$unit" || socket_changed=yes
  done
  for unit in lora-server.socket lora-server.service lora-eval.socket lora-eval.service; do
    install -m 644 "systemd/$unit" "$UNITS/$unit"
  done
  install -D -m 644 -t "$DOC" docs/deployment.md config.toml systemd/lora-server.tmpfiles.conf
  install -D -m 644 -t "$DOC/examples" systemd/examples/*.conf systemd/nginx.conf
  systemctl daemon-reload
}

switch() {
  ln -sfn "$release" "$CURRENT.new"
  mv -T "$CURRENT.new" "$CURRENT"
  install -m 755 systemd/lora-server.sh /usr/local/bin/lora-server
  trap 'rm -rf "$source"' EXIT
  # The one before stays, for `ln -sfn` back; children of a running service live in it too.
  ls -1d "$HOME_OF_RELEASES"/* | sort | head -n -2 | while read -r old; do rm -rf "$old"; done
}

start() {
  # The worker is started by what connects to its socket, and again after an upgrade.
  systemctl --quiet enable lora-server.socket lora-server.service lora-eval.socket
  [ "$socket_changed" = no ] || systemctl stop lora-server.socket lora-eval.socket
  systemctl start lora-server.socket lora-eval.socket
  systemctl try-restart lora-eval.service
  if ! systemctl restart lora-server.service; then
    journalctl --no-pager --lines 5 --unit lora-server.service >&2
    stop "it does not start; the lines above say why"
  fi
  systemctl --no-pager --lines 0 status lora-server.service
}

source=
check_host
build
add_users_and_folders
add_settings
add_units
switch
start
say "a token for the first try: lora-server token mint --subject ops --scope admin"
