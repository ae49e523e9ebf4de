#!/bin/bash
# Gets what the worker of a queue needs to start: the image, and what is secret, if anything is.
#   usage: prepare.sh <queue>    from worker@.service
set -euo pipefail
umask 077

docker rm --force "worker-$1" || true # what a crash may have left

# The image's user is not root, whichever it is; nobody else gets through the folder above.
install --directory --mode=1777 "$RUNTIME_DIRECTORY/alive"

kept=$RUNTIME_DIRECTORY/secrets.env
: >"$kept"
for secret in $SECRETS; do # each as <what its variables begin with>=<ARN>
    arn=${secret#*=}
    # Not what jq itself says, which quotes what it was given.
    aws secretsmanager get-secret-value --secret-id "$arn" --query SecretString --output text |
        jq --raw-output --arg prefix "${secret%%=*}" \
            'to_entries[] | "\($prefix)\(.key | ascii_upcase)=\(.value)"' 2>/dev/null >>"$kept" ||
        { echo "The secret $arn does not hold what it should: was that made?" >&2 && exit 1; }
done

for secret in $TASK_SECRETS; do # each as <variable>=<ARN>
    arn=${secret#*=}
    case $arn in
    *:ssm:*) value=$(aws ssm get-parameter --name "$arn" --with-decryption --query Parameter.Value --output text) ;;
    *) value=$(aws secretsmanager get-secret-value --secret-id "$arn" --query SecretString --output text) ;;
    esac
    case $value in
    *$'\n'*) echo "The secret $arn has more than one line." >&2 && exit 1 ;;
    esac
    printf '%s\n' "${secret%%=*}=$value" >>"$kept"
done

aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
docker pull --quiet "$IMAGE"
