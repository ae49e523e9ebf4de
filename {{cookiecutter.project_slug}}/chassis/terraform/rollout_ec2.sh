#!/usr/bin/env bash
# Waits until the instances of all workers have been replaced by instances that run an image, or
# prints why not. An instance is in service only when its worker is ready: see the hook start-worker
# in compute_ec2.tf. A group without instances gets one until it is in service.
#   usage: rollout_ec2.sh <prefix of the groups' names> <seconds until it has failed> <tag> <worker>...
set -euo pipefail
prefix=$1 patience_seconds=$2 tag=$3
shift 3
trial=    # the group that got an instance

# End with the reason.
fail() {
    echo "$worker: $tag is not deployed; $1" >&2
    exit 1
}

# Wait before the next look, or end: `pause <what is being waited for>`.
pause() {
    if [ $SECONDS -gt "$patience_seconds" ]; then
        fail "still $1 after $patience_seconds seconds"
    fi
    sleep "${PAUSE_SECONDS:-10}"
}

capacity() {
    aws autoscaling describe-auto-scaling-groups --auto-scaling-group-names "$group" --output text \
        --query "AutoScalingGroups[0].[DesiredCapacity, length(Instances[?LifecycleState=='InService'])]"
}

# Leaves a group alone that was scaled out meanwhile.
stop_trial() {
    local desired
    if [ -n "$trial" ]; then
        trial=
        desired=$(capacity)
        if [ "${desired%%$'\t'*}" = 1 ]; then
            aws autoscaling set-desired-capacity --auto-scaling-group-name "$group" --desired-capacity 0
        fi
    fi
}
trap stop_trial EXIT

# Ends if a worker on an instance that was started since then did not become ready in time. Other
# failures, such as a lack of Spot capacity, are retried by the group.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
check_launches() {
    local abandoned
    abandoned=$(aws autoscaling describe-scaling-activities --auto-scaling-group-name "$group" --no-paginate --output text \
        --query "Activities[?StartTime>='$since' && contains(not_null(StatusMessage, ''), 'Lifecycle Action')] | [0].StatusMessage")
    if [ "$abandoned" != None ]; then
        fail "its worker did not become ready: $abandoned"
    fi
}

wait_for_refresh() {
    local newest state reason
    while :; do
        # The newest is first. A new group has none: it started with this image.
        newest=$(aws autoscaling describe-instance-refreshes --auto-scaling-group-name "$group" \
            --no-paginate --output text --query 'InstanceRefreshes[0].[Status, StartTime, StatusReason]')
        IFS=$'\t' read -r state since reason <<<"$newest"
        case $state in
        Successful | None) return ;;
        Pending | InProgress | Baking | Cancelling | RollbackInProgress) ;;
        *) fail "instance refresh is $state: $reason" ;;
        esac
        check_launches
        pause "$state: $reason"
    done
}

wait_for_instance() {
    local found desired running
    found=$(capacity)
    IFS=$'\t' read -r desired running <<<"$found"
    if [ "$desired" = 0 ]; then
        trial=$group since=$(date -u +%Y-%m-%dT%H:%M:%S)
        aws autoscaling set-desired-capacity --auto-scaling-group-name "$group" --desired-capacity 1
    fi
    while [ "${running:-0}" = 0 ]; do
        check_launches
        pause "without an instance in service"
        found=$(capacity)
        IFS=$'\t' read -r desired running <<<"$found"
    done
    if [ -n "$trial" ]; then
        stop_trial
        echo "$worker: can run $tag, and has no instances now"
    else
        echo "$worker: instances run $tag"
    fi
}

for worker in "$@"; do
    SECONDS=0 # counted by the shell, for each worker: one that is started as a trial takes minutes
    group=$prefix-$worker since=
    wait_for_refresh
    wait_for_instance
done
