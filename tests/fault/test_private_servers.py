"""The servers that fault tests stop and kill: they come back, with what they had."""

from __future__ import annotations

import kombu
import psycopg
import pymysql
import pytest
import redis

from tests.support.broker_servers import PrivateRabbitMQ, PrivateRedis
from tests.support.database_servers import PrivateMariaDB, PrivatePostgreSQL
from tests.support.servers import PrivateServer


def _pg(server: PrivateServer) -> psycopg.Connection:
    return psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True, connect_timeout=3)


def test_postgresql_keeps_commits_over_a_crash(private_postgresql: PrivatePostgreSQL) -> None:
    """What PostgreSQL has committed is there after `kill9` and `start`, on the same port."""
    with _pg(private_postgresql) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (7)")
    private_postgresql.kill9()
    with pytest.raises(psycopg.OperationalError):
        _pg(private_postgresql)
    private_postgresql.start()
    with _pg(private_postgresql) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]
    private_postgresql.restart()
    with _pg(private_postgresql) as connection:
        assert connection.execute("SELECT n FROM kept").fetchall() == [(7,)]


def test_mariadb_keeps_commits_over_a_crash(private_mariadb: PrivateMariaDB) -> None:
    """What MariaDB has committed is there after `kill9` and `start`, on the same port."""

    def run(*statements: str) -> tuple[tuple[object, ...], ...]:
        login = {"host": "127.0.0.1", "port": private_mariadb.port, "user": "root"}
        with pymysql.connect(**login, autocommit=True) as connection:  # type: ignore[arg-type]
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall()

    run("CREATE DATABASE d", "CREATE TABLE d.kept (n int)", "INSERT INTO d.kept VALUES (7)")
    private_mariadb.kill9()
    with pytest.raises(pymysql.OperationalError):
        run("SELECT 1")
    private_mariadb.start()
    assert run("SELECT n FROM d.kept") == ((7,),)
    private_mariadb.restart()
    assert run("SELECT n FROM d.kept") == ((7,),)


def test_redis_keeps_messages_over_a_crash(private_redis: PrivateRedis) -> None:
    """What Redis has answered for is there after `kill9` and `start`, on the same port."""
    with redis.Redis.from_url(private_redis.url) as client:
        client.lpush("queue", "message")
    private_redis.kill9()
    with redis.Redis.from_url(private_redis.url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    private_redis.start()
    with redis.Redis.from_url(private_redis.url) as client:
        assert client.lrange("queue", 0, -1) == [b"message"]


def test_rabbitmq_keeps_messages_over_a_crash(private_rabbitmq: PrivateRabbitMQ) -> None:
    """A message RabbitMQ has confirmed is there after `kill9` and `start`, on the same port."""
    options = {"confirm_publish": True}
    with kombu.Connection(private_rabbitmq.url, transport_options=options) as connection:
        connection.SimpleQueue("kept").put({"n": 7})
    private_rabbitmq.kill9()
    with pytest.raises(OSError), kombu.Connection(private_rabbitmq.url) as connection:  # noqa: PT011
        connection.connect()
    private_rabbitmq.start()
    with kombu.Connection(private_rabbitmq.url) as connection:
        assert connection.SimpleQueue("kept").get(timeout=10).payload == {"n": 7}


def test_a_paused_server_is_silent_until_it_resumes(private_redis: PrivateRedis) -> None:
    """A paused server keeps its connections and answers nothing; then it goes on."""
    with redis.Redis.from_url(private_redis.url, socket_timeout=0.2) as client:
        client.ping()
        private_redis.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        private_redis.resume()
        assert client.ping()
