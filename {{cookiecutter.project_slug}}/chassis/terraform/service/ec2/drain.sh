#!/bin/bash
# Stops the worker before this instance terminates: two minutes before a Spot interruption, or at
# scale-in, which waits for the lifecycle hook in compute_ec2.tf.
#   usage: drain.sh    from drain.service
set -euo pipefail

metadata=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}/latest

ask() { curl --silent --fail --max-time 2 --noproxy '*' "$@"; }

# https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
is_terminating() {
    local token
    token=$(ask --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$metadata/api/token") || return
    token="X-aws-ec2-metadata-token: $token"
    [ "$(ask --header "$token" "$metadata/meta-data/autoscaling/target-lifecycle-state")" = Terminated ] ||
        ask --header "$token" "$metadata/meta-data/spot/instance-action" >/dev/null
}

until is_terminating; do sleep 5; done
echo "This instance is terminating: stopping its worker."
systemctl stop 'worker@*.service'
