#!/bin/sh
# Makes the database on first start, with the generated password, then serves it.
set -eu
data=/var/lib/postgresql/orders
bin=/usr/lib/postgresql/15/bin

if [ ! -s "$data/PG_VERSION" ]; then
  rm -rf "$data.new"
  "$bin/initdb" --pgdata "$data.new" --username shop --pwfile /run/secrets/db-password \
    --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
  echo "host all all all scram-sha-256" >> "$data.new/pg_hba.conf"
  # Renamed when it is whole: a first start that was interrupted begins again.
  mv "$data.new" "$data"
fi

exec "$bin/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
