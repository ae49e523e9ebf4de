"""A cluster that loses its nodes one after another, as Amazon MQ's does in maintenance and on bad days."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from celery_aws.dev.brokers import rabbitmq as development
from library.rabbitmq.cluster import cluster
from library.support import eventually, module, notes, running_service
from library.tcp_faults import proxy

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow, pytest.mark.timeout(400)]

TASKS = 500


def test_cluster_when_its_nodes_die_or_stand_still_in_turn_then_no_task_is_lost(
    tmp_path_factory, tmp_path, monkeypatch
):
    folders = [tmp_path / str(number) for number in range(TASKS)]
    over = threading.Event()
    with (
        cluster(tmp_path_factory.mktemp("cluster")) as (first, second, third),
        proxy(first.url) as balancer,  # As the load balancer in front of Amazon MQ's nodes.
    ):
        monkeypatch.setenv(development.RUNNING, f"{balancer.url} {third.management}")

        def move_to(node):
            balancer.upstream = node.address
            balancer.cut()

        with running_service(tmp_path_factory.mktemp("logs"), max_receive_count=50) as service:

            def send(some):
                for folder in some:
                    folder.mkdir()
                    while not over.is_set():
                        try:
                            service.send("overrun", str(folder), 0.1)
                            break
                        except Exception as error:
                            if not module("brokers.rabbitmq").is_unavailable(error):
                                raise
                            time.sleep(0.2)  # It may have been sent; that it is sent again is the sender's choice.
                    time.sleep(0.1)

            send(folders[:1])  # Declares the queues, whose leaders are where it is connected to.
            virtual_host = service.environment["BROKER_URL"].rpartition("/")[2]
            assert third.ask(f"queues/{virtual_host}/{service.queue.name}")["leader"] == first.name
            move_to(second)
            service.start_worker()
            assert service.ready(), service.log()
            sender = threading.Thread(target=send, args=(folders[1:],), daemon=True)
            sender.start()
            try:
                time.sleep(3)
                first.kill()  # The leader.
                time.sleep(5)
                first.start()
                assert first.sees(3)
                second.kill()  # Worker and sender are connected to it.
                move_to(first)
                time.sleep(5)
                second.start()
                assert second.sees(3)
                first.signal(signal.SIGSTOP)  # They are connected to it, and told nothing.
                balancer.upstream = third.address
                lost = service.log().count("Connection to broker lost")
                assert eventually(lambda: service.log().count("Connection to broker lost") > lost, 60), service.log()
                first.signal(signal.SIGCONT)
                assert third.sees(3)

                def undone():
                    return [folder.name for folder in folders if not (folder.exists() and notes(folder))]

                assert eventually(lambda: not undone(), 120), (undone(), service.log()[-3000:])
            finally:
                over.set()
                sender.join()
            assert eventually(lambda: service.waiting() == 0, 150), (service.waiting(), service.log()[-3000:])
            assert service.dead() == 0
