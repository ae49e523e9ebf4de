#!/usr/bin/env bash
# Destroys an environment with its messages, results and images. Asks for the environment's full
# name on standard input, and refuses while the data is protected.
#   usage: destroy.sh <environment> <service>-<environment>
set -euo pipefail
cd "$(dirname "$0")/../.."
environment=$1 name=$2
values=terraform/environments/$environment.tfvars
override=chassis/terraform/service/destroy_override.tf

if [ ! -f "$values" ]; then
    echo "$values does not exist" >&2
    exit 2
fi
terraform() { command "${TERRAFORM_CLI:-terraform}" -chdir=terraform "$@"; }
tag=$(make --silent --no-print-directory deployed "ENV=$environment")
variables=(-var-file="environments/$environment.tfvars" -var="image_tag=$tag")
# Beside the value, it says that it waits for the lock of the state, if that takes long.
protected=$(terraform console "${variables[@]}" <<<var.protect_data | grep -Ex 'true|false')
if [ "$protected" != false ]; then
    echo "$name: protect_data is $protected; to delete messages, results and images, set protect_data = false in $values" >&2
    exit 2
fi
known=$(terraform state list)
if [ -z "$known" ]; then
    echo "$name: there is nothing to destroy"
    exit
fi
resources=$(grep -c -v -F .data. <<<"$known") || true
echo "This deletes ${resources:-0} resources of $name, with all messages, results and images."
read -r -p "Type $name to continue: " answer || true
if [ "$answer" != "$name" ]; then
    echo "$name: not destroyed" >&2
    exit 2
fi

# `prevent_destroy` takes no variable, so an override file replaces it for as long as this runs.
# https://developer.hashicorp.com/terraform/language/files/override
trap 'rm -f "$override"' EXIT
awk '/^resource / { head = $0 }
    /^ *prevent_destroy *= *true/ { print head; print "  lifecycle {\n    prevent_destroy = false\n  }\n}" }' \
    chassis/terraform/service/*.tf >"$override"

# Terraform deletes a bucket or repository that is not empty, a protected table, and a secret without
# a recovery window only if its state says so, so the first command writes protect_data = false there.
# It changes these only, so that it creates nothing again if a destroy was interrupted.
targets=()
while read -r address; do
    targets+=("-target=$address")
done < <(grep -E '\.aws_(s3_bucket|ecr_repository|dynamodb_table|secretsmanager_secret)\.' <<<"$known")
if [ ${#targets[@]} -gt 0 ]; then
    terraform apply -refresh=false -input=false -auto-approve "${variables[@]}" "${targets[@]}"
fi
terraform destroy -input=false -auto-approve "${variables[@]}"
echo "$name was destroyed; docs/deleting.md says what is left"
