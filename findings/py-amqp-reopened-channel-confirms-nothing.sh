#!/usr/bin/env bash
# Library: py-amqp 5.4.2 (RabbitMQ's transport in kombu).
#
# A good guess: after a broker has closed a channel for an error (here: a message to an exchange that
# does not exist), its `Channel` object is closed, as in other clients, and the next use of it says so.
#
# What it does: the object opens a new channel by itself while it raises the error. It is open and
# works, but it is new to the broker: publisher confirms that were asked for by `confirm_select()` are
# off, consumers are gone, and so is the prefetch limit. What is published on it is never confirmed, and
# nothing says so. (With the connection's option `confirm_publish` py-amqp asks for confirms again.)
# Messages that were sent before and not confirmed yet get no answer either.
#
# Documented: not that we found; the method that does it is private.
#
# Why it matters to whoever waits for confirms by itself, for a batch at once: after one refused message
# it waits in vain for all that follow, takes accepted messages for lost, and sends them again.
#
# The broker below is no real one. It answers as AMQP 0-9-1 says, and prints what it was asked.

set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install --quiet amqp==5.4.2

timeout 50 venv/bin/python - <<'PYTHON'
import socket
import struct
import threading

import amqp
from amqp import spec
from amqp.serialization import dumps

ANSWERS = {
    spec.Connection.StartOk: (spec.Connection.Tune, "BlB", (2047, 131072, 0)),
    spec.Connection.Open: (spec.Connection.OpenOk, "", ()),
    spec.Channel.Open: (spec.Channel.OpenOk, "", ()),
    spec.Confirm.Select: (spec.Confirm.SelectOk, "", ()),
    spec.Basic.Qos: (spec.Basic.QosOk, "", ()),
    spec.Connection.Close: (spec.Connection.CloseOk, "", ()),
}
NAMES = {
    spec.Channel.Open: "channel.open",
    spec.Confirm.Select: "confirm.select",
    spec.Basic.Qos: "basic.qos",
    spec.Basic.Publish: "basic.publish",
}
asked = []


def serve(listener):
    peer, _ = listener.accept()
    stream = peer.makefile("rwb")
    confirms, published = False, 0

    def send(channel, method, form, values):
        payload = struct.pack(">HH", *method) + dumps(form, values)
        stream.write(struct.pack(">BHI", 1, channel, len(payload)) + payload + b"\xce")
        stream.flush()

    stream.read(8)  # the protocol's header
    able = {"capabilities": {"publisher_confirms": True}}
    send(0, spec.Connection.Start, "ooFSS", (0, 9, able, "PLAIN", "en_US"))
    while head := stream.read(7):
        kind, channel, size = struct.unpack(">BHI", head)
        payload = stream.read(size + 1)[:-1]
        if kind != 1:  # the header or the body of a message
            continue
        method = struct.unpack_from(">HH", payload)
        if method in NAMES:
            asked.append(NAMES[method])
        if method == spec.Channel.Open:
            confirms, published = False, 0
        if method == spec.Confirm.Select:
            confirms = True
        if method in ANSWERS:
            send(channel, *ANSWERS[method])
        if method == spec.Basic.Publish:
            published += 1
            if b"missing" in payload:
                send(channel, spec.Channel.Close, "BsBB", (404, "no exchange 'missing'", 60, 40))
            elif confirms:
                send(channel, spec.Basic.Ack, "Lb", (published, False))


listener = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
connection = amqp.Connection(f"127.0.0.1:{listener.getsockname()[1]}", heartbeat=0)
connection.connect()
channel = connection.channel()
channel.basic_qos(0, 10, False)
channel.confirm_select()
confirmed = []
channel.events["basic_ack"].add(lambda number, multiple: confirmed.append(number))


def publish(exchange):
    """Publish a message, and give the broker two seconds to confirm it."""
    before = len(confirmed)
    channel.basic_publish(amqp.Message("hello"), exchange, "key")
    try:
        while len(confirmed) == before:
            connection.drain_events(timeout=2)
    except TimeoutError:
        return "not confirmed"
    return "confirmed"


first = publish("known")
try:
    refused = publish("missing")
except amqp.NotFound as error:
    refused = f"NotFound: {error.reply_text}"
is_open = channel.is_open
third = publish("known")
print(f"before: {first}; the refused one: {refused}; the channel is open: {is_open}; after: {third}")
print("the broker was asked:", ", ".join(asked))
assert (first, is_open, third) == ("confirmed", True, "not confirmed"), "changed"
assert asked == [
    *("channel.open", "basic.qos", "confirm.select", "basic.publish"),
    *("basic.publish", "channel.open", "basic.publish"),
], "changed"
PYTHON
