#!/usr/bin/env bash
# Deploys an image to an environment and waits until all workers run it. If they do not, rolls back
# to the previous image, or to no workers if it was the first, and exits with 1.
#   usage: deploy.sh <environment> <tag>
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$1 tag=$2

case $tag in
'' | *-dirty)
    echo "$environment: nothing to deploy: there is no commit, or there are uncommitted changes; commit first, or set a tag that exists: make deploy TAG=..." >&2
    exit 2
    ;;
esac

plan() { make --no-print-directory plan "ENV=$environment" "TAG=$1"; }
roll_out() { make --no-print-directory apply rollout "ENV=$environment" "TAG=$1"; }

before=$(make --silent --no-print-directory deployed "ENV=$environment")
echo "$environment: from ${before:-no image} to $tag"
plan "$tag" # if it fails, nothing has changed, and there is nothing to roll back
if roll_out "$tag"; then
    exit
fi
if [ "$before" = "$tag" ]; then
    echo "$environment: $tag does not run, and there is no previous image to roll back to" >&2
    exit 1
fi
if [ -z "$before" ]; then
    echo "$environment: $tag does not run, and there is no previous image to roll back to; stopping its workers" >&2
    plan none
    make --no-print-directory apply "ENV=$environment"
    exit 1
fi
echo "$environment: $tag does not run; rolling back to $before" >&2
plan "$before"
roll_out "$before"
echo "$environment: rolled back to $before; $tag was not deployed" >&2
exit 1
