#!/bin/sh
# The command of the version that is in force, with this host's settings.
export LORA_SERVER_CONFIG="${LORA_SERVER_CONFIG-/etc/lora-server/config.toml}"
exec /opt/lora-server/current/bin/lora-server "$@"
