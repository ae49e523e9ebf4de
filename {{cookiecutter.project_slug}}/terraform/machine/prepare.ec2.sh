#!/bin/bash
# Gets what the worker of a queue needs to start: the image, and the access key if it has one.
#   usage: prepare.sh <queue>    from worker@.service
set -euo pipefail
umask 077

docker rm --force "worker-$1" || true # what a crash may have left

# The image's user is not root, whichever it is; nobody else gets through the folder above.
install --directory --mode=1777 "$RUNTIME_DIRECTORY/alive"

secrets=$RUNTIME_DIRECTORY/secrets.env
: >"$secrets"
if [ -n "$ACCESS_KEY_ARN" ]; then
    # Not what jq itself says, which quotes what it was given.
    aws secretsmanager get-secret-value --secret-id "$ACCESS_KEY_ARN" --query SecretString --output text |
        jq --raw-output 'to_entries[] | "\(.key)=\(.value)"' 2>/dev/null >"$secrets" ||
        { echo "The secret $ACCESS_KEY_ARN holds no access key: was one made?" >&2 && exit 1; }
fi

aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
docker pull --quiet "$IMAGE"
