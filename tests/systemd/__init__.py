"""The units on a Debian that is booted for it; `make test-systemd`, and not part of `make test`."""
