#!/bin/bash
# Prepares a worker: pulls the image and fetches the secrets.
#   usage: prepare.sh <worker>    from worker@.service
set -euo pipefail
umask 077

docker rm --force "worker-$1" || true # left behind by a crash

# Writable for the image's user, who is not root; the parent folder keeps others out.
install --directory --mode=1777 "$RUNTIME_DIRECTORY/alive"

kept=$RUNTIME_DIRECTORY/secrets.env
: >"$kept"
for secret in $SECRETS; do # each as <prefix of the variables>=<ARN>
    arn=${secret#*=}
    # Without the messages of jq, which would quote the secret.
    aws secretsmanager get-secret-value --secret-id "$arn" --query SecretString --output text |
        jq --raw-output --arg prefix "${secret%%=*}" \
            'to_entries[] | "\($prefix)\(.key | ascii_upcase)=\(.value)"' 2>/dev/null >>"$kept" ||
        { echo "secret $arn has no value or is not a JSON object: was it set?" >&2 && exit 1; }
done

for secret in $TASK_SECRETS; do # each as <variable>=<ARN>
    arn=${secret#*=}
    case $arn in
    *:ssm:*) value=$(aws ssm get-parameter --name "$arn" --with-decryption --query Parameter.Value --output text) ;;
    *) value=$(aws secretsmanager get-secret-value --secret-id "$arn" --query SecretString --output text) ;;
    esac
    case $value in
    *$'\n'*) echo "secret $arn has more than one line" >&2 && exit 1 ;;
    esac
    printf '%s\n' "${secret%%=*}=$value" >>"$kept"
done

aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
docker pull --quiet "$IMAGE"
