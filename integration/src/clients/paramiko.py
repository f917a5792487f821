"""Publishes with paramiko what the JSON argument says, prints what the server prints, runs until killed."""

import json
import socket
import sys
import threading

import paramiko

said = json.loads(sys.argv[1])
transport = paramiko.Transport((said["host"], said["port"]))
transport.connect(username=said["user"], pkey=paramiko.Ed25519Key(filename=said["key"]))
targets = {}


def pump(source, sink):
    try:
        while data := source.recv(32768):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR) if isinstance(sink, socket.socket) else sink.shutdown_write()
    except OSError:
        sink.close()


def serve(channel, origin, server):
    try:
        upstream = socket.create_connection(("127.0.0.1", targets[server[1]]))
    except OSError:
        channel.close()
        return
    threading.Thread(target=pump, args=(channel, upstream), daemon=True).start()
    threading.Thread(target=pump, args=(upstream, channel), daemon=True).start()


for forward in said["forwards"]:
    port = transport.request_port_forward(forward["address"], forward["port"], serve)
    targets[port] = forward["target"]

if said["command"] is None:
    transport.join()
else:
    session = transport.open_session()
    session.set_combine_stderr(True)
    session.exec_command(said["command"])
    while data := session.recv(4096):
        sys.stdout.write(data.decode())
        sys.stdout.flush()
    sys.exit(session.recv_exit_status())
