#!/usr/bin/env bash
# Gives an image to an environment and waits until all workers run it; goes back to the image before
# if they do not. Exits with 1 then, and also if there is none to go back to.
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
    echo "$environment: $tag does not run, and there is no other image to go back to" >&2
    exit 1
fi
echo "$environment: $tag does not run; going back to $before" >&2
roll_out "$before"
echo "$environment: $before runs again, and $tag was not deployed" >&2
exit 1
