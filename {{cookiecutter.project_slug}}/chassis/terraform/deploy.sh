#!/usr/bin/env bash
# Deploys an image to an environment and waits until all workers run it. If they do not, rolls back
# to the previous image, if there is one, and exits with 1.
#   usage: deploy.sh <environment> <tag>
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$1 tag=$2

roll_out() { make --no-print-directory plan apply rollout "ENV=$environment" "TAG=$1"; }

before=$(make --silent --no-print-directory deployed "ENV=$environment")
echo "$environment: from ${before:-no image} to $tag"
if roll_out "$tag"; then
    exit
fi
if [ -z "$before" ] || [ "$before" = "$tag" ]; then
    echo "$environment: $tag does not run, and there is no previous image to roll back to" >&2
    exit 1
fi
echo "$environment: $tag does not run; rolling back to $before" >&2
roll_out "$before"
echo "$environment: rolled back to $before; $tag was not deployed" >&2
exit 1
