"""Settings of a module, such as Django's: what wins, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from library.support import module

app = module("service").app()
errors = module("errors")


@pytest.fixture
def fresh():
    """An application of one's own."""
    yield module("app").build(app.contract, type(app.settings))
    app.set_current()
    app.set_default()


def refusal(fresh, namespace="CELERY", **settings):
    fresh.config_from_object(SimpleNamespace(**settings), namespace=namespace)
    with pytest.raises(errors.UnsupportedError) as error:
        fresh.conf.task_track_started  # noqa: B018 - reads the settings
    return str(error.value)


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("task_routes", {"a.*": {"queue": "b"}}, "routes in contract.json"),
        ("task_serializer", "pickle", "it is 'json' here"),
        ("accept_content", ["json", "pickle"], "it is ['json'] here"),
        ("task_acks_late", False, "it is True here"),
        ("timezone", "Europe/Berlin", "it is 'UTC' here"),
        ("beat_schedule", {"nightly": {}}, "schedules in contract.json"),
        ("worker_concurrency", 8, "concurrency of a worker"),
        ("task_publish_retry_policy", {"max_retries": 9}, "celery.py"),
    ],
)
def test_setting_when_it_contradicts_the_service_then_is_refused(fresh, setting, value, advice):
    name = f"CELERY_{setting.upper()}"
    message = refusal(fresh, **{name: value})
    assert message.startswith(f"{name}={value!r} is not supported")
    assert advice in message


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("broker_url", "redis://:SECRET@localhost/0", "environment variables"),
        ("broker_url", "sqs://AKIA:NO/SECRET@", "environment variables"),
        ("broker_url", ["amqp://u:SECRET@one//", "amqp://u:SECRET@two//"], "environment variables"),
        ("broker_read_url", ["redis://:SECRET@localhost/0"], "environment variables"),
        ("broker_transport_options", {"predefined_queues": {"q": {"secret_access_key": "SECRET"}}}, "delivery"),
        ("result_backend", "db+postgresql://u:SECRET@host/results", "results in contract.json"),
    ],
)
def test_setting_when_it_may_contain_a_secret_then_is_not_shown(fresh, setting, value, advice):
    name = f"CELERY_{setting.upper()}"
    message = refusal(fresh, **{name: value})
    assert message.startswith(f"{name} is not supported")
    assert advice in message
    assert "SECRET" not in message


def test_settings_when_several_contradict_then_all_are_listed(fresh):
    lines = refusal(fresh, CELERY_TASK_ACKS_LATE=False, CELERY_BEAT_SCHEDULE={"a": {}}).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["CELERY_BEAT_SCHEDULE", "CELERY_TASK_ACKS_LATE"]


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("task_time_limit", "300", "float(...)"),
        ("task_always_eager", "False", "True or False"),
        ("worker_max_memory_per_child", "1000", "int(...)"),
        ("redis_db", "SECRET", "int(...)"),
    ],
)
def test_setting_when_it_is_text_for_a_number_or_boolean_then_is_refused(fresh, setting, value, advice):
    name = f"CELERY_{setting.upper()}"
    message = refusal(fresh, **{name: value})
    assert message.startswith(f"{name} is text" if value == "SECRET" else f"{name}={value!r} is text")
    assert advice in message
    assert "SECRET" not in message


@pytest.mark.parametrize("name", ["broker_url", "BROKER_URL"])
def test_setting_when_without_a_namespace_then_is_refused_as_well(fresh, name):
    message = refusal(fresh, namespace=None, **{name: "redis://user:secret@localhost"})
    assert "broker_url" in message
    assert "secret" not in message


def test_settings_when_they_contradict_nothing_then_apply(fresh):
    fresh.conf.update(worker_max_memory_per_child=1)
    settings = {"TASK_TRACK_STARTED": True, "IMPORTS": ["a"], "TASK_SERIALIZER": "json", "ACCEPT_CONTENT": ("json",)}
    settings |= {"RESULT_CHORD_RETRY_INTERVAL": 2, "TASK_DEFAULT_RATE_LIMIT": "9/m", "TASK_EAGER_PROPAGATES": None}
    settings |= {"WORKER_MAX_MEMORY_PER_CHILD": 2, "BEAT_SCHEDULE": {}}
    fresh.config_from_object(
        SimpleNamespace(TIME_ZONE="Europe/Berlin", **{f"CELERY_{name}": value for name, value in settings.items()}),
        namespace="CELERY",
    )
    conf = fresh.conf
    assert (conf.task_track_started, conf.imports, conf.timezone) == (True, ["a"], "UTC")
    assert conf.task_acks_late is True
    assert conf.worker_max_memory_per_child == 1  # What is set on the application wins.


def test_settings_when_read_before_then_keep_what_was_set(fresh):
    assert fresh.conf.task_acks_late is True
    fresh.conf.task_send_sent_event = True
    fresh.config_from_object(SimpleNamespace(CELERY_TASK_TRACK_STARTED=True), namespace="CELERY")
    conf = fresh.conf
    assert (conf.task_acks_late, conf.task_send_sent_event, conf.task_track_started) == (True, True, True)
    assert conf.task_queues


def test_environment_variables_of_other_applications_have_no_effect(fresh, monkeypatch):
    before = fresh.connection_for_write().as_uri(), fresh.connection_for_read().as_uri(), type(app.backend)
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, "redis://elsewhere")
    assert (fresh.connection_for_write().as_uri(), fresh.connection_for_read().as_uri(), type(fresh.backend)) == before
