#!/bin/bash
# Completes a lifecycle action of this instance: its worker is ready, or has stopped before the
# instance terminates. See the hooks in compute_ec2.tf.
#   usage: lifecycle.sh <worker> start|stop    from worker@.service
set -euo pipefail

metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest

ask() { curl --silent --fail --max-time 2 --retry 3 --noproxy '*' "$@"; }

token=$(ask --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token")
token="X-aws-ec2-metadata-token: $token"

# A worker also stops when it has failed, and then starts again.
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
if [ "$2" = stop ] && [ "$(ask --header "$token" "$metadata/meta-data/autoscaling/target-lifecycle-state")" != Terminated ]; then
    exit
fi

# Fails, and need not succeed, when the worker is ready again after a restart.
instance=$(ask --header "$token" "$metadata/meta-data/instance-id")
AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=10 aws autoscaling complete-lifecycle-action --lifecycle-action-result CONTINUE \
    --lifecycle-hook-name "$2-worker" --auto-scaling-group-name "$GROUP_PREFIX-$1" --instance-id "$instance"
