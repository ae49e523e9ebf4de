#!/usr/bin/env bash
# Waits until the services of all queues run an image, or prints why they do not.
#   usage: rollout_ecs.sh <cluster> <tag> <queue>...
set -euo pipefail
cluster=$1 tag=$2
shift 2
SECONDS=0 # counted by the shell
patience_seconds=1800

for queue in "$@"; do
    while :; do
        primary=$(aws ecs describe-services --cluster "$cluster" --services "$queue" --output text \
            --query "services[0].deployments[?status=='PRIMARY'] | [0].[taskDefinition, rolloutState, rolloutStateReason]")
        IFS=$'\t' read -r definition state reason <<<"$primary"
        image=$(aws ecs describe-task-definition --task-definition "$definition" --output text \
            --query 'taskDefinition.containerDefinitions[0].image')
        # After a rollback by the circuit breaker, the deployment completes with the previous
        # image.
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
        if [ "${image##*:}" != "$tag" ] || [ "$state" = FAILED ]; then
            echo "$queue: $tag did not start; ${image##*:} is $state: $reason" >&2
            exit 1
        fi
        if [ "$state" = COMPLETED ]; then
            echo "$queue: runs $tag"
            break
        fi
        if [ $SECONDS -gt $patience_seconds ]; then
            echo "$queue: still $state after $patience_seconds seconds: $reason" >&2
            exit 1
        fi
        sleep "${PAUSE_SECONDS:-10}"
    done
done
