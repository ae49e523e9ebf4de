#!/bin/bash
# Sends to CloudWatch what was said by a worker that failed, and by the scripts that start it: its
# container may never have run, and its instance may be gone soon.
#   usage: report.sh <worker>    from worker@.service, which says how it ended
set -euo pipefail

if [ "$SERVICE_RESULT" = success ]; then
    exit
fi
journalctl --sync || true
# An argument of a command is 128 KiB at most.
said=$(journalctl --no-pager --output cat --lines 100 "_SYSTEMD_INVOCATION_ID=$INVOCATION_ID" | tail --bytes 10000 || true)
event=$(jq --null-input --arg result "$SERVICE_RESULT" --arg status "${EXIT_STATUS:-}" --arg said "$said" \
    --arg name "$1" '[{timestamp: (now * 1000 | floor), message: "\($name) failed: \($result) \($status)\n\($said)"}]')
# The stream of the container, which may exist.
aws logs create-log-stream --log-group-name "$LOG_GROUP" --log-stream-name "$1/$HOSTNAME" 2>/dev/null || true
aws logs put-log-events --log-group-name "$LOG_GROUP" --log-stream-name "$1/$HOSTNAME" --log-events "$event" >/dev/null
