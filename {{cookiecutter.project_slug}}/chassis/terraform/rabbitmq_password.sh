#!/usr/bin/env bash
# Changes the service's password at the broker and in the secret. Run it after the broker is
# created, because the first password is in Terraform's state, and to rotate the password. It can
# be run again after an interruption. Workers read the new password when they start; restart them
# soon, because they cannot reconnect with the old one.
#   usage: rabbitmq_password.sh <secret> <https://broker> [<host>:<port> of a tunnel to the broker's port 443]
set -euo pipefail
secret=$1 broker=$2 tunnel=${3:-}

stored() { aws secretsmanager get-secret-value --secret-id "$secret" --version-stage "$1" --query "$2" --output text; }
move_label() { aws secretsmanager update-secret-version-stage --secret-id "$secret" --version-stage "$@" >/dev/null; }

# Calls the broker with the credentials on standard input: arguments would be visible in the
# process list.
ask() {
    curl --silent --show-error --fail --max-time 30 ${tunnel:+--connect-to "::$tunnel"} \
        --config <(jq --raw-output '"user = \"\(.username):\(.password)\""') "$@"
}

current=$(stored AWSCURRENT SecretString)
current_version=$(stored AWSCURRENT VersionId)
next_version=$(stored AWSPENDING VersionId 2>/dev/null) || next_version=$current_version
# The password is stored before it is set at the broker, so that it cannot get lost.
if [ "$next_version" = "$current_version" ]; then
    password=$(aws secretsmanager get-random-password --password-length 40 --exclude-punctuation --query RandomPassword --output text)
    password=$password jq --compact-output '.password = env.password' <<<"$current" |
        aws secretsmanager put-secret-value --secret-id "$secret" --version-stages AWSPENDING --secret-string file:///dev/stdin >/dev/null
    next_version=$(stored AWSPENDING VersionId)
fi
next=$(stored AWSPENDING SecretString)

if ! ask "$broker/api/whoami" <<<"$next" >/dev/null 2>&1; then
    # https://www.rabbitmq.com/docs/http-api-reference
    ask --request PUT --data @<(jq '{password, tags: "administrator"}' <<<"$next") \
        "$broker/api/users/$(jq --raw-output .username <<<"$next")" <<<"$current"
    ask "$broker/api/whoami" <<<"$next" >/dev/null
fi
move_label AWSCURRENT --move-to-version-id "$next_version" --remove-from-version-id "$current_version"
move_label AWSPENDING --remove-from-version-id "$next_version"
echo "The password was changed; restart the workers."
