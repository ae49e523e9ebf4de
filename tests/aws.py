"""AWS for Terraform: a baked project's emulator, with what the AWS provider asks for and moto lacks.

Run in a baked project's folder, it prints its URL and lives until its standard input ends. Whoever
posts `0` to /moto-api/reset-auth switches IAM on.
"""

from __future__ import annotations

import fnmatch
import inspect
import json
import os
import re
import sys
import threading
from contextlib import nullcontext
from urllib.parse import unquote

os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000000"

from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.autoscaling.responses import AutoScalingResponse
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.dynamodb.responses import DynamoHandler
from moto.ec2.models import ec2_backends
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.elasticache.models import CacheCluster, ElastiCacheBackend
from moto.elasticache.responses import ElastiCacheResponse
from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, IAMRequestBase, PermissionResult
from moto.iam.responses import IamResponse
from moto.logs.responses import LogsResponse
from moto.mq.models import Broker, mq_backends
from moto.mq.responses import MQResponse
from moto.s3.models import FakeBucket
from moto.scheduler.responses import EventBridgeSchedulerResponse
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
        if self._service in ("mq", "scheduler") and not self._body:
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

    def schedule(self):
        """A schedule, a group of them, or the group whose tags are asked for."""
        _, kind, name, *_ = (*unquote(self.path).split("/", 2), "", "")
        if kind == "tags" or not name:
            return name or "*"
        group = f"{self._get_param('GroupName') or self._get_param('groupName')}/" if kind == "schedules" else ""
        return f"arn:aws:scheduler:{self.region}:{self.current_account}:{kind.removesuffix('s')}/{group}{name}"

    EventBridgeSchedulerResponse._determine_resource = schedule
    IAMPolicyStatement._match = staticmethod(lambda pattern, text: fnmatch.fnmatchcase(text, pattern) or None)
    SecretsManagerResponse._determine_resource = secret
    MQResponse._determine_resource = broker
    IAMRequestBase.__init__ = request
    SQSResponse._determine_resource = lambda self: self._get_param("SourceArn") or named(self) or queue(self)
    DynamoHandler._determine_resource = table
    EC2ContainerServiceResponse._determine_resource = watched
    LogsResponse._determine_resource = log_group
    FakeBucket.get_permission = lambda self, action, resource: PermissionResult.NEUTRAL


EC2_TYPES = {
    "eipalloc": "elastic-ip",
    "igw": "internet-gateway",
    "lt": "launch-template",
    "nat": "natgateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "subnet": "subnet",
    "vpc": "vpc",
    "vpce": "vpc-endpoint",
}
"""Types of resources in ARNs, by how their ids begin."""


def named_in(action, data, ec2):
    """Return the ids that EC2 authorises a request by; routes and rules do not authorise what they lead to."""
    left_out = {
        "CreateRoute": "Gateway",
        "ReplaceRoute": "Gateway",
        "RevokeSecurityGroupEgress": "SecurityGroupRuleId",
        "RevokeSecurityGroupIngress": "SecurityGroupRuleId",
    }.get(action, "IpPermissions")
    for name, (value, *_) in data.items():
        if left_out in name or name.startswith(("IpPermissions", "LaunchTemplateData")):
            continue
        if value.startswith("rtbassoc-"):
            yield from (table.id for table in ec2.route_tables.values() if value in table._associations)
        elif value.startswith("vpc-cidr-assoc-"):
            yield from (vpc.id for vpc in ec2.vpcs.values() if value in vpc._cidr_block_association_set)
        elif value.startswith("eipassoc-"):
            yield from (each.allocation_id for each in ec2.addresses if each.association_id == value)
        elif value.partition("-")[0] in EC2_TYPES:
            yield value


def authorize_ec2_by_tags():
    """EC2 decides by the ARN and the tags of each resource that a request names or creates.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
    """
    check = IAMRequestBase.check_action_permitted

    def tags_in(data, prefix):
        numbers = [name.removesuffix("Key") for name in data if name.startswith(prefix) and name.endswith(".Key")]
        return {f"aws:RequestTag/{data[f'{each}Key'][0]}": data[f"{each}Value"][0] for each in numbers}

    def questions(self, ec2):
        """Yield each action, type and id of its resource, and context that must be allowed."""
        action, data = self._action.partition(":")[2], self._data
        new_type = data.get("TagSpecification.1.ResourceType", [None])[0]
        given = tags_in(data, "TagSpecification.1." if new_type else "Tag.")
        names = list(named_in(action, data, ec2))
        for name in names:
            tags = {f"aws:ResourceTag/{tag}": value for tag, value in ec2.tags.get(name, {}).items()}
            yield action, f"{EC2_TYPES[name.partition('-')[0]]}/{name}", {**tags, **given}
        if new_type:
            yield action, f"{new_type}/new", given
            yield "CreateTags", f"{new_type}/new", {**given, "ec2:CreateAction": action}
        elif not names:
            yield action, "new", {}

    def holds(test, key, values, context):
        if test == "Null":
            return (key not in context) == (values == "true")
        assert test == "StringEquals", test
        return context.get(key) in ([values] if isinstance(values, str) else values)

    def allows(statement, action, arn, context):
        actions, resources = (
            [statement[part]] if isinstance(statement[part], str) else statement[part]
            for part in ("Action", "Resource")
        )
        return (
            any(fnmatch.fnmatchcase(f"ec2:{action}", pattern) for pattern in actions)
            and any(fnmatch.fnmatchcase(arn, pattern) for pattern in resources)
            and all(
                holds(test, key, values, context)
                for test, keys in statement.get("Condition", {}).items()
                for key, values in keys.items()
            )
        )

    def check_action_permitted(self, resource):
        if self._service != "ec2" or self._action.startswith("ec2:Describe"):
            check(self, resource)
            return
        statements = []
        for policy in self._access_key.collect_policies():
            found = IAMPolicy(policy)._policy_json["Statement"]
            statements += found if isinstance(found, list) else [found]
        for action, name, context in questions(self, ec2_backends[self.account_id][self._region]):
            arn = f"arn:aws:ec2:{self._region}:{self.account_id}:{name}"
            if not any(allows(statement, action, arn, context) for statement in statements):
                print(f"denied: ec2:{action} on {name} with {context}", file=sys.stderr, flush=True)
                self._raise_access_denied()

    IAMRequestBase.check_action_permitted = check_action_permitted


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


def keep_parameter_groups():
    """ElastiCache's, which moto lacks: their names, families and changed parameters."""
    groups = {}

    def described(self, group):
        name = group["CacheParameterGroupName"]
        arn = f"arn:aws:elasticache:{self.region}:{self.current_account}:parametergroup:{name}"
        return {**group, "ARN": arn, "IsGlobal": False}

    def create(self):
        names = ("CacheParameterGroupName", "CacheParameterGroupFamily", "Description")
        group = {name: self._get_param(name) for name in names}
        groups[group["CacheParameterGroupName"]] = (group, {})
        made = described(self, group)
        self.elasticache_backend.add_tags_to_resource(made["ARN"], self._get_param("Tags") or [])
        return ActionResult({"CacheParameterGroup": made})

    def modify(self):
        name = self._get_param("CacheParameterGroupName")
        for each in self._get_param("ParameterNameValues", []):
            groups[name][1][each["ParameterName"]] = each["ParameterValue"]
        return ActionResult({"CacheParameterGroupName": name})

    def describe(self):
        name = self._get_param("CacheParameterGroupName")
        return ActionResult({"CacheParameterGroups": [described(self, groups[name][0])] if name in groups else []})

    def parameters(self):
        changed = groups[self._get_param("CacheParameterGroupName")][1]
        found = [{"ParameterName": name, "ParameterValue": value, "Source": "user"} for name, value in changed.items()]
        return ActionResult({"Parameters": found})

    def delete(self):
        groups.pop(self._get_param("CacheParameterGroupName"), None)
        return EmptyResult()

    make = ElastiCacheBackend.__init__

    def backend(self, *arguments, **named):
        make(self, *arguments, **named)
        self.arn_regex = re.compile(self.arn_regex.pattern.replace("snapshot", "snapshot|parametergroup"))

    ElastiCacheBackend.__init__ = backend
    ElastiCacheResponse.create_cache_parameter_group = create
    ElastiCacheResponse.modify_cache_parameter_group = modify
    ElastiCacheResponse.describe_cache_parameter_groups = describe
    ElastiCacheResponse.describe_cache_parameters = parameters
    ElastiCacheResponse.delete_cache_parameter_group = delete


def make_brokers_as_aws_does():
    """Their ids begin with b-, which is after the name in their ARNs, and nobody is told who their users are."""
    make = Broker.__init__

    def broker(self, name, account_id, region, *arguments, **named):
        make(self, name, account_id, region, *arguments, **named)
        self.id = f"b-{self.id}"
        self.arn = f"arn:aws:mq:{region}:{account_id}:broker:{name}:{self.id}"

    Broker.__init__ = broker
    Broker.users = property(lambda self: [])


def remember_boundaries_of_users():
    """Those of roles are remembered by moto."""
    create = IamResponse.create_user

    def create_user(self):
        answer, boundary = create(self), self._get_param("PermissionsBoundary")
        if boundary:
            kind = {"PermissionsBoundaryType": "PermissionsBoundaryPolicy", "PermissionsBoundaryArn": boundary}
            self.backend.get_user(self._get_param("UserName")).permissions_boundary = kind
        return answer

    IamResponse.create_user = create_user


if __name__ == "__main__":
    answer_one_request_at_a_time()
    return_all_queue_attributes()
    authorize_as_aws_does()
    authorize_ec2_by_tags()
    tag_scalable_targets()
    give_replication_groups_their_nodes()
    keep_parameter_groups()
    make_brokers_as_aws_does()
    remember_boundaries_of_users()
    AutoScalingResponse.start_instance_refresh = lambda self: ActionResult({"InstanceRefreshId": "refresh-1"})
    IamResponse.list_service_specific_credentials = lambda self: ActionResult({"ServiceSpecificCredentials": []})
    with emulator.moto() as url:
        print(url, flush=True)
        sys.stdin.read()
