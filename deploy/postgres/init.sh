#!/bin/sh
# One database and one role for each service; a role owns its database and may enter no other.
# Run once, by the postgres image, when its volume is empty. Each password comes from the environment:
# CATALOG_DATABASE_PASSWORD and so on. With QUOTA_SHARDS above 1, quota's role also owns a database for each shard.
set -eu

for service in catalog quota routing billing audit; do
    variable="$(printf '%s' "$service" | tr '[:lower:]' '[:upper:]')_DATABASE_PASSWORD"
    eval ": \"\${$variable:?set $variable in .env}\""
    # psql takes the password from the environment: an argument would be readable by every process.
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set role="tokengrid_$service" <<SQL
\\getenv password $variable
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
done

shard=0
while [ "${QUOTA_SHARDS:-1}" -gt 1 ] && [ "$shard" -lt "$QUOTA_SHARDS" ]; do
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
        --set name="tokengrid_quota_$shard" <<SQL
CREATE DATABASE :"name" OWNER tokengrid_quota;
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
    shard=$((shard + 1))
done
