"""Runs cases of Autobahn's websocket test suite against servers and prints what each of them saw, as JSON.

The suite is Python 2. Its cases are plain classes, and all that stands between them and Python 3 is what a string
is: there, bytes. Here a string of the suite is a string of code points below 256, one for each byte (Latin-1). Its
files are read that way, with a few words replaced, and payloads are translated on their way to autobahn's current
library and back. What the suite's own fuzzing client does around a case, `Fuzzer` does.

The argument: {"suite": FOLDER, "cases": [PREFIX], "together": N, "patience": FACTOR,
"servers": [{"name": .., "url": .., "address": [HOST, PORT], "ca": FILE or null}]}
"""

import binascii
import hashlib
import importlib.abc
import importlib.machinery
import json
import pathlib
import re
import sys
import types

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import defer, reactor, ssl, task

said = json.loads(sys.argv[1])
SUITE = pathlib.Path(said["suite"]) / "autobahntestsuite"

# Python 2 to 3, as far as the cases need it. Case 9.9.1 is not in the suite's own list and does not load.
WORDS = [
    (r"(?m)^from case9_9_1 import \*", ""),
    (r"(?m)^from (case\w*) import", r"from .\1 import"),
    (r"(?m)^( *)print\b ?(.*)$", r"\1print(\2)"),
    (r"\bxrange\b", "range"),
    (r"\(object, Case, \)", "(Case,)"),
    (r"\bbinascii\b", "octets"),
    (r"validate\(vss\[:i\]\)", 'validate(vss[:i].encode("latin-1"))'),
    (r"len\(self\.payload\) / ", "len(self.payload) // "),
    (r"\brequestNoContextTakeover\b", "request_no_context_takeover"),
    (r"\brequestMaxWindowBits\b", "request_max_window_bits"),
]


class Loader(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Imports the suite's package `case` with these words replaced."""

    def find_spec(self, name, path, target=None):
        if name != "case" and not name.startswith("case."):
            return None
        file = SUITE.joinpath(*name.split("."))
        package = file.is_dir()
        file = file / "__init__.py" if package else file.with_suffix(".py")
        return importlib.machinery.ModuleSpec(name, self, origin=str(file), is_package=package)

    def get_filename(self, name):
        return self.find_spec(name, None).origin

    def get_data(self, path):
        return pathlib.Path(path).read_bytes()

    def source_to_code(self, data, path, *, _optimize=-1):
        text = data.decode("latin-1").replace("\r\n", "\n")
        for word, replacement in WORDS:
            text = re.sub(word, replacement, text)
        return compile(text, path, "exec", dont_inherit=True)


def octets(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)


module("octets", b2a_hex=lambda text: binascii.b2a_hex(octets(text)).decode(), hexlify=binascii.hexlify)
module("pkg_resources", resource_filename=lambda package, path: str(SUITE / path))
sys.dont_write_bytecode = True
sys.meta_path.insert(0, Loader())

from case import Case, Cases  # noqa: E402

# The suite compares pickles, in which it matters whether two equal strings are one object.
Case.compare = lambda self, one, other: one == other


class Fuzzer(WebSocketClientProtocol):
    """A connection of one case, with what the cases expect of it."""

    createWirelog = False

    def __init__(self, kind):
        super().__init__()
        self.connectionWasOpen = False
        self.done = defer.Deferred()
        self.frames = []
        self.txFrameStats = {}
        self.accepted = None
        # The cases of permessage-deflate handle bytes as Python 3 does.
        self.translated = not re.match(r"Case1[23]_", kind.__name__)
        self.extensions = None

    def take(self, case):
        self.case = case

    # What a case calls.

    def sendFrame(self, opcode, payload="", **more):
        super().sendFrame(opcode, octets(payload), **more)

    def sendMessage(self, payload, isBinary=False, **more):
        super().sendMessage(octets(payload), isBinary, **more)

    def sendMessageFrameData(self, payload, sync=False):
        super().sendMessageFrameData(octets(payload), sync)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, None if reasonUtf8 is None else octets(reasonUtf8), isReply)

    def enableWirelog(self, enable):
        pass

    def later(self, delay, action, *arguments):
        reactor.callLater(delay, lambda: self.state == self.STATE_CLOSED or action(*arguments))

    def continueLater(self, delay, action, tag=None):
        self.later(delay, action)

    def killAfter(self, delay):
        self.later(delay * said["patience"], self.failConnection)

    def closeAfter(self, delay):
        self.later(delay * said["patience"], self.sendClose)

    def failConnection(self, *arguments):
        # Under this name autobahn 0.10 had what is `_fail_connection` now.
        self._fail_connection(*arguments)

    # What autobahn calls.

    def onConnect(self, response):
        self.extensions = response.headers.get("sec-websocket-extensions")

    def onOpen(self):
        self.connectionWasOpen = True
        self.case.onOpen()

    def onMessage(self, payload, isBinary):
        self.case.onMessage(payload.decode("latin-1") if self.translated else payload, isBinary)

    def onPing(self, payload):
        self.case.onPing(payload.decode("latin-1"))

    def onPong(self, payload):
        self.case.onPong(payload.decode("latin-1"))

    def onClose(self, wasClean, code, reason):
        self.case.onClose(wasClean, code, reason)

    def logRxOctets(self, data):
        pass

    def logTxOctets(self, data, sync):
        pass

    def logTxFrame(self, frame, *_):
        self.txFrameStats[frame.opcode] = self.txFrameStats.get(frame.opcode, 0) + 1

    def logRxFrame(self, frame, payload):
        payload = b"".join(payload)
        shown = payload.hex() if len(payload) <= 32 else hashlib.sha256(payload).hexdigest()[:16]
        self.frames.append(f"{frame.opcode}/{int(frame.fin)}/{frame.rsv}/{len(payload)}/{shown}")

    def connectionLost(self, reason):
        super().connectionLost(reason)
        self.case.onConnectionLost(self.failedByMe)
        self.done.callback(None)


def run(kind, server):
    """Runs one case; the outcome comes when its connection has ended."""
    factory = WebSocketClientFactory(server["url"], useragent="autobahntestsuite")
    factory.logFrames = True
    factory.setProtocolOptions(
        failByDrop=False, openHandshakeTimeout=20, closeHandshakeTimeout=10, serverConnectionDropTimeout=10
    )
    protocol = Fuzzer(kind)
    factory.buildProtocol = lambda address: protocol
    protocol.factory = factory
    protocol.take(kind(protocol))
    factory.clientConnectionFailed = lambda connector, reason: protocol.done.errback(reason)
    host, port = server["address"]
    if factory.isSecure:
        trust = ssl.Certificate.loadPEM(pathlib.Path(server["ca"]).read_bytes())
        reactor.connectSSL(host, port, factory, ssl.optionsForClientTLS(factory.host, trust))
    else:
        reactor.connectTCP(host, port, factory)
    return protocol.done.addCallback(lambda _: outcome(protocol))


def outcome(protocol):
    """What an onlooker at the visitor's end could tell."""
    case = protocol.case
    frames = protocol.frames
    if len(frames) > 40:
        frames = [f"{len(frames)} frames", hashlib.sha256("\n".join(frames).encode()).hexdigest()[:16]]
    return {
        "behavior": case.behavior,
        "close": case.behaviorClose,
        "why": f"{case.result} {case.resultClose}",
        "frames": frames,
        "extensions": protocol.extensions,
        "code": protocol.remoteCloseCode,
        "reason": protocol.remoteCloseReason,
        "clean": protocol.wasClean,
        "closed_by_me": protocol.closedByMe,
        "dropped_by_me": protocol.droppedByMe,
    }


def number(kind):
    return kind.__name__.removeprefix("Case").replace("_", ".")


def chosen(kind):
    return any((number(kind) + ".").startswith(prefix + ".") for prefix in said["cases"])


def main(_):
    outcomes = {server["name"]: {} for server in said["servers"]}

    def keep(found, kind, server):
        outcomes[server["name"]][number(kind)] = found

    def work():
        for kind in filter(chosen, Cases):
            for server in said["servers"]:
                yield run(kind, server).addCallback(keep, kind, server)

    steps = work()
    all_done = defer.gatherResults([task.coiterate(steps) for _ in range(said["together"])], consumeErrors=True)
    return all_done.addCallback(lambda _: print(json.dumps(outcomes)))


task.react(main)
