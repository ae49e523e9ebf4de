#!/usr/bin/env bash
# Waits until the services of all workers run an image, or prints why they do not. A deployment
# without workers completes at once, whatever the image: then one worker of it is started, and
# stopped when it is healthy.
#   usage: rollout_ecs.sh <cluster> <seconds until it has failed> <tag> <worker>...
set -euo pipefail
cluster=$1 patience_seconds=$2 tag=$3
shift 3
trial=    # the ECS task that is started for a service without workers

# End with the reason.
fail() {
    echo "$worker: $1" >&2
    exit 1
}

# Wait before the next look, or end: `pause <what is being waited for>`.
pause() {
    if [ $SECONDS -gt "$patience_seconds" ]; then
        fail "still $1 after $patience_seconds seconds"
    fi
    sleep "${PAUSE_SECONDS:-10}"
}

# A worker takes messages while it is tried. It finishes or releases them when it is stopped.
stop_trial() {
    if [ -n "$trial" ]; then
        aws ecs stop-task --cluster "$cluster" --task "$trial" --reason "Deployment verified" >/dev/null
        trial=
    fi
}
trap stop_trial EXIT

wait_for_deployment() {
    local primary image state reason
    while :; do
        primary=$(aws ecs describe-services --cluster "$cluster" --services "$worker" --output text \
            --query "services[0].deployments[?status=='PRIMARY'] | [0].[taskDefinition, runningCount, rolloutState, rolloutStateReason]")
        IFS=$'\t' read -r definition running state reason <<<"$primary"
        image=$(aws ecs describe-task-definition --task-definition "$definition" --output text \
            --query 'taskDefinition.containerDefinitions[0].image')
        # After a rollback by the circuit breaker, the deployment completes with the previous
        # image.
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
        if [ "${image##*:}" != "$tag" ] || [ "$state" = FAILED ]; then
            fail "$tag did not start; ${image##*:} is $state: $reason"
        fi
        if [ "$state" = COMPLETED ]; then
            return
        fi
        pause "$state: $reason"
    done
}

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/standalone-task-create.html
try_one_worker() {
    local network started status health reason
    network=$(aws ecs describe-services --cluster "$cluster" --services "$worker" \
        --query 'services[0].networkConfiguration' --output json)
    started=$(aws ecs run-task --cluster "$cluster" --task-definition "$definition" --launch-type FARGATE \
        --network-configuration "$network" --started-by rollout --output text --query '[tasks[0].taskArn, failures[0].reason]')
    IFS=$'\t' read -r trial reason <<<"$started"
    if [ "$trial" = None ]; then
        trial=
        fail "$tag did not start: $reason"
    fi
    while :; do
        started=$(aws ecs describe-tasks --cluster "$cluster" --tasks "$trial" --output text \
            --query "tasks[0].[lastStatus, containers[?name=='worker'].healthStatus | [0], stoppedReason]")
        IFS=$'\t' read -r status health reason <<<"$started"
        case $status-$health in
        RUNNING-HEALTHY) break ;;
        STOPPED-* | *-UNHEALTHY) fail "$tag did not become healthy; its worker is $status and $health: $reason" ;;
        esac
        pause "$status and $health"
    done
    stop_trial
}

for worker in "$@"; do
    SECONDS=0 # counted by the shell, for each worker: one that is started as a trial takes minutes
    wait_for_deployment
    if [ "$running" = 0 ]; then
        try_one_worker
        echo "$worker: can run $tag, and has no workers now"
    else
        echo "$worker: runs $tag"
    fi
done
