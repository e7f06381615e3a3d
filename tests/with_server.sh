#!/bin/sh
# Runs a command with a Redis of its own at TOKENPOOL_REDIS, and ends that when the command ends.
#
#   tests/with_server.sh cargo run --release -- get pools
set -eu
server=$("$(dirname "$0")/servers.sh" redis)
directory=$(mktemp -d)
mkfifo "$directory/log"
"$server" --port 0 --unixsocket "$directory/s" --save '' --appendonly no --dir "$directory" >"$directory/log" &
pid=$!
trap 'kill $pid; wait $pid || true; rm -r "$directory"' EXIT
# Until it is ready; what it says later must be read, too.
exec 3<"$directory/log"
while read -r line <&3; do
  case $line in *[Rr]eady\ to\ accept*) break ;; esac
done
cat <&3 >/dev/null &
TOKENPOOL_REDIS=unix://$directory/s "$@"
