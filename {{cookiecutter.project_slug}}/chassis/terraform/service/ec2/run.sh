#!/bin/bash
# Runs a worker, or the beat, in a container, and notifies systemd while it is alive.
#   usage: run.sh <worker>|Beat    from worker@.service
#
# systemd accepts notifications from processes of the unit only, and the container belongs to
# Docker. So the worker touches a shared file, and this script notifies systemd.
set -euo pipefail

container=worker-$1
command=(worker "$1")
if [ "$1" = Beat ]; then command=(beat); fi
alive=$RUNTIME_DIRECTORY/alive/$SERVICE-$1.alive
told=$RUNTIME_DIRECTORY/told

# In the background, because the watchdog also needs notifications while the worker stops. In a
# subshell, because the signal may arrive between the two commands below and must not change $!.
trap '(docker stop "$container" >/dev/null &)' TERM

# The host network, because the role's credentials are only one hop away.
docker run --rm --name "$container" --init --network host --no-healthcheck \
    --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --pids-limit 1000 \
    --stop-timeout "$STOP_TIMEOUT_SECONDS" \
    --env-file /etc/worker/service.env --env-file "$RUNTIME_DIRECTORY/secrets.env" \
    --mount "type=bind,source=$RUNTIME_DIRECTORY/alive,target=/run/alive" --env LIVENESS_DIRECTORY=/run/alive \
    --log-driver awslogs --log-opt "awslogs-region=$AWS_DEFAULT_REGION" --log-opt "awslogs-group=$LOG_GROUP" \
    --log-opt "awslogs-stream=$1/$HOSTNAME" --log-opt mode=non-blocking \
    "$IMAGE" "$SERVICE" "${command[@]}" &
client=$!

while kill -0 "$client" 2>/dev/null; do
    if [ "$alive" -nt "$told" ]; then
        touch --reference="$alive" "$told"
        systemd-notify READY=1 WATCHDOG=1 || true # The watchdog notices missing notifications.
    fi
    sleep 2
done
wait "$client"
