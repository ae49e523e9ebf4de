"""AWS for Terraform: a baked project's emulator, with what the AWS provider asks for and moto lacks.

Run in a baked project's folder, it prints its URL and lives until its standard input ends. Whoever
posts `0` to /moto-api/reset-auth switches IAM on.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import sys
import threading
from contextlib import nullcontext

os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000"

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.dynamodb.responses import DynamoHandler
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.elasticache.models import CacheCluster, ElastiCacheBackend
from moto.elasticache.responses import ElastiCacheResponse
from moto.iam.access_control import IAMPolicyStatement, IAMRequestBase, PermissionResult
from moto.iam.responses import IamResponse
from moto.logs.responses import LogsResponse
from moto.mq.models import Broker, mq_backends
from moto.mq.responses import MQResponse
from moto.s3.models import FakeBucket
from moto.secretsmanager.models import secretsmanager_backends
from moto.secretsmanager.responses import SecretsManagerResponse
from moto.sqs.models import Queue
from moto.sqs.responses import SQSResponse

from celery_aws.dev import emulator


def answer_one_request_at_a_time():
    """moto is not made for threads, and Terraform asks forty questions at once. Only long polls wait beside others."""
    call, lock = BaseResponse.call_action, threading.RLock()

    def call_action(self):
        with nullcontext() if self._get_action() == "ReceiveMessage" else lock:
            return call(self)

    BaseResponse.call_action = call_action


def return_all_queue_attributes():
    """AWS returns the redrive-allow policy, writes JSON without spaces, and keeps a policy nobody changes."""
    read, write = Queue.attributes.fget, Queue._set_attributes

    def attributes(self):
        found = read(self)
        if allowed := getattr(self, "redrive_allow_policy", None):
            found["RedriveAllowPolicy"] = allowed if isinstance(allowed, str) else json.dumps(allowed)
        if redrive := found.get("RedrivePolicy"):
            found["RedrivePolicy"] = json.dumps(json.loads(redrive), separators=(",", ":"))
        return found

    def set_attributes(self, attributes, now=None):
        policy = getattr(self, "policy", None)
        write(self, attributes, now)
        if "Policy" not in attributes and policy:
            self.policy = policy

    Queue.attributes = property(attributes)
    Queue._set_attributes = set_attributes
    Queue.KMS_ATTRIBUTES = [*Queue.KMS_ATTRIBUTES, "RedriveAllowPolicy"]


def authorize_as_aws_does():
    """A batch is authorised by its single action; what moves messages and the rest, by the ARN of what it names.

    The only bucket policies here refuse plain HTTP, which is all the emulator speaks.
    """
    initialize, queue = IAMRequestBase.__init__, SQSResponse._determine_resource

    def request(self, *arguments, **named):
        initialize(self, *arguments, **named)
        self._action = self._action.removesuffix("Batch").replace("monitoring:", "cloudwatch:")
        self._action = self._action.replace("s3:HeadBucket", "s3:ListBucket")
        if self._service == "mq" and not self._body:
            self._data = {}  # What is in the path is not signed a second time.

    def named(self):
        name = self._get_param("QueueName")
        return f"arn:aws:sqs:{self.region}:{self.current_account}:{name}" if name else None

    def table(self):
        return f"arn:aws:dynamodb:{self.region}:{self.current_account}:table/{self._get_param('TableName')}"

    def watched(self):
        kind, names = ("service", "services") if self._get_action() == "DescribeServices" else ("task", "tasks")
        if not self._get_param(names):
            return "*"
        name = self._get_param(names)[0].rpartition("/")[2]
        return f"arn:aws:ecs:{self.region}:{self.current_account}:{kind}/{self._get_param('cluster')}/{name}"

    def log_group(self):
        return f"arn:aws:logs:{self.region}:{self.current_account}:log-group:{self._get_param('logGroupName')}:*"

    def secret(self):
        secrets, asked = secretsmanager_backends[self.current_account][self.region].secrets, self._get_param("SecretId")
        return secrets[asked].arn if asked and asked in secrets else "*"

    def broker(self):
        known = mq_backends[self.current_account][self.region].brokers
        name = self.path.partition("/v1/brokers/")[2].partition("/")[0]
        return known[name].arn if name in known else "*"

    IAMPolicyStatement._match = staticmethod(lambda pattern, text: fnmatch.fnmatchcase(text, pattern) or None)
    SecretsManagerResponse._determine_resource = secret
    MQResponse._determine_resource = broker
    IAMRequestBase.__init__ = request
    SQSResponse._determine_resource = lambda self: self._get_param("SourceArn") or named(self) or queue(self)
    DynamoHandler._determine_resource = table
    EC2ContainerServiceResponse._determine_resource = watched
    LogsResponse._determine_resource = log_group
    FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL


def tag_scalable_targets():
    """AWS remembers the tags of what is scaled."""
    tags = {}

    def list_tags(self):
        return json.dumps({"Tags": tags.get(self._get_param("ResourceARN"), {})})

    def tag(self):
        tags.setdefault(self._get_param("ResourceARN"), {}).update(self._get_param("Tags") or {})
        return "{}"

    ApplicationAutoScalingResponse.list_tags_for_resource = list_tags
    ApplicationAutoScalingResponse.tag_resource = tag


def give_replication_groups_their_nodes():
    """A group brings its nodes, and takes them along; so does a subnet group end when it is deleted."""
    create, delete = ElastiCacheBackend.create_replication_group, ElastiCacheBackend.delete_replication_group
    parameters = [name for name in inspect.signature(CacheCluster.__init__).parameters if name != "self"]

    def create_group(self, *arguments, **named):
        group = create(self, *arguments, **named)
        for member in group.member_clusters:
            known = {name: named.get(name) for name in parameters}
            known |= {"account_id": self.account_id, "region_name": self.region_name, "cache_cluster_id": member}
            known |= {"replication_group_id": group.replication_group_id, "engine": "redis", "port": group.port}
            known |= {"auto_minor_version_upgrade": True, "log_delivery_configurations": []}
            node = CacheCluster(**known)
            node.engine = named.get("engine")
            node.cache_cluster_status = "available"
            self.cache_clusters[member] = node
        return group

    def delete_group(self, replication_group_id, *arguments, **named):
        members = list(self.replication_groups[replication_group_id].member_clusters)
        group = delete(self, replication_group_id, *arguments, **named)
        self.replication_groups.pop(replication_group_id, None)
        for member in members:
            self.cache_clusters.pop(member, None)
        return group

    def delete_subnet_group(self):
        self.elasticache_backend.cache_subnet_groups.pop(self._get_param("CacheSubnetGroupName"), None)
        return EmptyResult()

    ElastiCacheBackend.create_replication_group = create_group
    ElastiCacheBackend.delete_replication_group = delete_group
    ElastiCacheResponse.delete_cache_subnet_group = delete_subnet_group


def make_brokers_as_aws_does():
    """Their ids begin with b-, which is after the name in their ARNs, and nobody is told who their users are."""
    make = Broker.__init__

    def broker(self, name, account_id, region, *arguments, **named):
        make(self, name, account_id, region, *arguments, **named)
        self.id = f"b-{self.id}"
        self.arn = f"arn:aws:mq:{region}:{account_id}:broker:{name}:{self.id}"

    Broker.__init__ = broker
    Broker.users = property(lambda self: [])


if __name__ == "__main__":
    answer_one_request_at_a_time()
    return_all_queue_attributes()
    authorize_as_aws_does()
    tag_scalable_targets()
    give_replication_groups_their_nodes()
    make_brokers_as_aws_does()
    IamResponse.list_service_specific_credentials = lambda self: ActionResult({"ServiceSpecificCredentials": []})
    with emulator.moto() as url:
        print(url, flush=True)
        sys.stdin.read()
