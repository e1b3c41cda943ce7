#!/bin/sh
# Removes the services and the program; leaves data, catalogue, settings, key and users.
set -eu
[ "$(id -u)" = 0 ] || { echo "lora-server: must be removed by root" >&2; exit 1; }

units="lora-server.socket lora-server.service lora-eval.socket lora-eval.service"
for unit in $units; do
  systemctl --quiet disable --now "$unit" 2>/dev/null || true
  rm -f "/etc/systemd/system/$unit"
done
systemctl daemon-reload
rm -rf /opt/lora-server /usr/share/doc/lora-server
rm -f /usr/local/bin/lora-server /etc/sysusers.d/lora-server.conf
echo "lora-server: removed; /data, /var/lib/lora-server, /etc/lora-server and the users stay"
