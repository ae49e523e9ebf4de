#!/usr/bin/env bash
# Gives the service another password at the broker and in the secret: once the broker is made, as its first one
# stands in Terraform's state, and whenever it is to change. Run again, it ends what was broken off. Workers get
# the new one when they are started; until then they must not lose their connections.
#   usage: rabbitmq_password.sh <secret> <https://broker> [<host>:<port> of a tunnel to the broker's port 443]
set -euo pipefail
secret=$1 broker=$2 tunnel=${3:-}

stored() { aws secretsmanager get-secret-value --secret-id "$secret" --version-stage "$1" --query "$2" --output text; }
move_label() { aws secretsmanager update-secret-version-stage --secret-id "$secret" --version-stage "$@" >/dev/null; }

# Asks the broker as who is described on standard input; no password is an argument, which all could see.
ask() {
    curl --silent --show-error --fail --max-time 30 ${tunnel:+--connect-to "::$tunnel"} \
        --config <(jq --raw-output '"user = \"\(.username):\(.password)\""') "$@"
}

current=$(stored AWSCURRENT SecretString)
current_version=$(stored AWSCURRENT VersionId)
next_version=$(stored AWSPENDING VersionId 2>/dev/null) || next_version=$current_version
# First it is kept, then it is used, so that there is no moment at which nobody knows it.
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
echo "The password is changed: restart the workers."
