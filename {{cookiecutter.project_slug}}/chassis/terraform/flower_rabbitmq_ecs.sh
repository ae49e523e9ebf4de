#!/usr/bin/env bash
# Forwards Flower to http://127.0.0.1:5555 until Ctrl-C. Requires the AWS CLI and its Session
# Manager plugin.
#   usage: flower_rabbitmq_ecs.sh <cluster>
set -euo pipefail
cluster=$1

task=$(aws ecs list-tasks --cluster "$cluster" --service-name Flower --query 'taskArns[0]' --output text)
if [ "$task" = None ]; then
    echo "Flower is not running in $cluster: set broker.flower_image_tag, or find out why ECS does not start it" >&2
    exit 1
fi
container=$(aws ecs describe-tasks --cluster "$cluster" --tasks "$task" --output text \
    --query "tasks[0].containers[?name=='flower'] | [0].runtimeId")

echo "http://127.0.0.1:5555, log in with the name and password that this command prints:"
echo "  aws secretsmanager get-secret-value --secret-id $cluster-broker-flower --query SecretString --output text"
# https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-sessions-start.html
exec aws ssm start-session --target "ecs:${cluster}_${task##*/}_$container" \
    --document-name AWS-StartPortForwardingSession --parameters portNumber=5555,localPortNumber=5555
