#!/bin/sh
# Fills in the host names that may be asked for, and becomes nginx.
set -eu
names=$(printf '%s' "$ALLOWED_HOSTS" | tr ',' ' ')
case $names in
*[!A-Za-z0-9.\ -]*) echo "ALLOWED_HOSTS is '$ALLOWED_HOSTS': host names separated by commas" >&2 && exit 2 ;;
esac
sed "s/@ALLOWED_HOSTS@/$names/" /etc/nginx/nginx.conf.in >/spool/nginx.conf
exec nginx -c /spool/nginx.conf -g 'daemon off;'
