#!/usr/bin/env bash
# Copyright 2026 The beam-batchasync authors
# SPDX-License-Identifier: Apache-2.0

# Installs the servers that the tests start for themselves, from Debian's packages,
# where they are missing. It starts nothing: each test binary runs servers of its
# own, on free ports, in temporary folders, and stops them.
set -euo pipefail

# installed tells whether a program can be found where internal/servertest looks.
installed() {
	local path
	for path in "/usr/sbin/$1" /usr/lib/postgresql/*/bin/"$1"; do
		if [[ -x $path ]]; then return 0; fi
	done
	command -v "$1" >/dev/null
}

packages=()
installed postgres && installed initdb && installed pg_basebackup || packages+=(postgresql)
installed mariadbd && installed mariadb-install-db || packages+=(mariadb-server)
installed redis-server || packages+=(redis-server)
if ((${#packages[@]} == 0)); then
	echo 'PostgreSQL, MariaDB and Redis are installed'
	exit 0
fi

if ! command -v apt-get >/dev/null; then
	echo "can't install ${packages[*]}: this isn't Debian; install PostgreSQL, MariaDB and Redis in its own way" >&2
	exit 1
fi
root=()
if ((EUID != 0)); then root=(sudo); fi
echo "installing ${packages[*]}"
"${root[@]}" apt-get update -qq
# RUNLEVEL=1: the packages must not start services of their own.
"${root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
	apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
