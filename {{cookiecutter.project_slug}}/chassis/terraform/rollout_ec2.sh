#!/usr/bin/env bash
# Waits until the instances of all queues have been replaced by instances that run an image, or
# prints why not.
#   usage: rollout_ec2.sh <prefix of the groups' names> <tag> <queue>...
set -euo pipefail
prefix=$1 tag=$2
shift 2
SECONDS=0 # counted by the shell
patience_seconds=3600

for queue in "$@"; do
    while :; do
        # The newest is first. A new group has none: it started with this image.
        newest=$(aws autoscaling describe-instance-refreshes --auto-scaling-group-name "$prefix-$queue" \
            --no-paginate --output text --query 'InstanceRefreshes[0].[Status, StatusReason]')
        IFS=$'\t' read -r state reason <<<"$newest"
        case $state in
        Successful | None)
            echo "$queue: instances run $tag"
            break
            ;;
        Pending | InProgress | Baking | Cancelling | RollbackInProgress) ;;
        *)
            echo "$queue: instances were not replaced, $tag is not deployed; instance refresh is $state: $reason" >&2
            exit 1
            ;;
        esac
        if [ $SECONDS -gt $patience_seconds ]; then
            echo "$queue: still $state after $patience_seconds seconds: $reason" >&2
            exit 1
        fi
        sleep "${PAUSE_SECONDS:-10}"
    done
done
