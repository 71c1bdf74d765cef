#!/bin/sh
# Replaces the replicas of the profile `scaled` one after the other, by ones with the image, bundle and settings of now,
# without losing a request: a new one first, and when it is ready an old one drains and goes. A new one that is not ready
# in time (READY_WITHIN_S, 120 s) is removed, and the old ones go on.
set -eu
export COMPOSE_PROFILES=scaled
ready_within_s=${READY_WITHIN_S:-120}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

replicas() { docker compose ps --all --quiet replica; }

# shellcheck disable=SC2046 # one word an id
count_ready() { docker inspect --format '{{.State.Health.Status}}' $(replicas) | grep -cx healthy; }

remove_all_but() {
    for replica in $(replicas); do
        case $1 in *"$replica"*) ;; *) docker rm --force --volumes "$replica" >/dev/null ;; esac
    done
}

old=$(replicas)
[ -n "$old" ] || fail "No replica runs here: COMPOSE_PROFILES=scaled docker compose up --detach"
# Nothing is touched where the new ones would not start.
docker compose run --rm --no-deps --no-TTY replica serve --check

for leaving in $old; do
    before=$(replicas)
    wanted=$(($(echo "$before" | wc -l) + 1))
    docker compose up --detach --no-deps --no-recreate --scale replica=$wanted replica
    waited_s=0
    until [ "$(count_ready)" -ge $wanted ]; do
        if [ $waited_s -ge "$ready_within_s" ]; then
            docker compose logs --tail 20 replica >&2
            remove_all_but "$before"
            fail "The new replica was not ready after $ready_within_s s and is gone; those from before go on."
        fi
        sleep 1
        waited_s=$((waited_s + 1))
    done
    docker stop "$leaving" >/dev/null
    docker rm --volumes "$leaving" >/dev/null
done
