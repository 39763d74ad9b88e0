# SPDX-License-Identifier: LGPL-2.1-or-later
"""A D-Bus client in the standard library: calls with error names, signals in the order in which they came, descriptors. Enough for tests."""
import array
import os
import socket
import struct
import time

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SENDER, SIGNATURE, UNIX_FDS = range(1, 10)
FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d", "h": "I"}
ALIGN = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "b": 4, "i": 4, "u": 4, "h": 4, "a": 4, "s": 4, "o": 4, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}


class BusError(Exception):
    def __init__(self, name, message):
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message

    @property
    def short(self):
        return self.name.rsplit(".", 1)[-1]


class Variant:
    """A value with its type, for what is sent."""

    def __init__(self, signature, value):
        self.signature, self.value = signature, value


def split(signature):
    """The complete types that a signature consists of."""
    types, i = [], 0
    while i < len(signature):
        start = i
        while signature[i] == "a":
            i += 1
        if signature[i] in "({":
            depth = 0
            while True:
                depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(signature[i], 0)
                i += 1
                if depth == 0:
                    break
        else:
            i += 1
        types.append(signature[start:i])
    return types


class Writer:
    def __init__(self):
        self.data = bytearray()

    def pad(self, n):
        self.data += b"\0" * (-len(self.data) % n)

    def put(self, t, value):
        self.pad(ALIGN[t[0]])
        if t[0] in FIXED:
            self.data += struct.pack("<" + FIXED[t[0]], value)
        elif t[0] in "so":
            raw = value.encode()
            self.data += struct.pack("<I", len(raw)) + raw + b"\0"
        elif t[0] == "g":
            self.data += struct.pack("<B", len(value)) + value.encode() + b"\0"
        elif t[0] == "v":
            self.put("g", value.signature)
            self.put(value.signature, value.value)
        elif t[0] == "a":
            at = len(self.data)
            self.data += b"\0\0\0\0"
            self.pad(ALIGN[t[1]])
            start = len(self.data)
            for item in value.items() if t[1] == "{" else value:
                self.put(t[1:], item)
            self.data[at:at + 4] = struct.pack("<I", len(self.data) - start)
        else:
            for sub, item in zip(split(t[1:-1]), value):
                self.put(sub, item)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def pad(self, n):
        self.at += -self.at % n

    def take(self, fmt):
        value, = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize(fmt)
        return value

    def get(self, t):
        self.pad(ALIGN[t[0]])
        if t[0] in FIXED:
            value = self.take(FIXED[t[0]])
            return bool(value) if t[0] == "b" else value
        if t[0] in "sog":
            n = self.take("B" if t[0] == "g" else "I")
            value = bytes(self.data[self.at:self.at + n]).decode()
            self.at += n + 1
            return value
        if t[0] == "v":
            return self.get(self.get("g"))
        if t[0] == "a":
            n = self.take("I")
            self.pad(ALIGN[t[1]])
            end, items = self.at + n, []
            while self.at < end:
                items.append(self.get(t[1:]))
            return dict(items) if t[1] == "{" else items
        return tuple(self.get(sub) for sub in split(t[1:-1]))


class Message:
    def __init__(self, kind, serial, fields, body):
        self.kind, self.serial, self.fields, self.body = kind, serial, fields, body
        self.path, self.member, self.interface = fields.get(PATH), fields.get(MEMBER), fields.get(INTERFACE)


class Connection:
    def __init__(self, address):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path_of(address))
        self.buffer, self.serial, self.signals, self.replies = bytearray(), 0, [], {}
        self.serve = None  # called with each method call that comes
        uid = str(os.geteuid()).encode().hex()
        self.sock.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
        self.line("OK")
        self.sock.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        self.line("AGREE_UNIX_FD")
        self.sock.sendall(b"BEGIN\r\n")
        self.name = self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello")

    @staticmethod
    def path_of(address):
        kind, _, rest = address.split(";")[0].partition(":")
        keys = dict(item.split("=", 1) for item in rest.split(","))
        assert kind == "unix", address
        return keys["path"] if "path" in keys else "\0" + keys["abstract"]

    def line(self, expected):
        while b"\r\n" not in self.buffer:
            self.buffer += self.sock.recv(4096)
        line, _, rest = bytes(self.buffer).partition(b"\r\n")
        self.buffer = bytearray(rest)
        assert line.decode().startswith(expected), line

    def close(self):
        self.sock.close()

    # --- messages ---

    def write(self, kind, fields, signature, args, fds=()):
        body, head = Writer(), Writer()
        for t, value in zip(split(signature), args):
            body.put(t, value)
        self.serial += 1
        if signature:
            fields.append((SIGNATURE, Variant("g", signature)))
        if fds:
            fields.append((UNIX_FDS, Variant("u", len(fds))))
        head.data += struct.pack("<cBBBII", b"l", kind, 0, 1, len(body.data), self.serial)
        head.put("a(yv)", fields)
        head.pad(8)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        raw = bytes(head.data + body.data)
        self.sock.settimeout(None)
        sent = self.sock.sendmsg([raw], control)
        self.sock.sendall(raw[sent:])
        return self.serial

    def send(self, destination, path, interface, member, signature="", args=(), fds=()):
        return self.write(METHOD_CALL, [(PATH, Variant("o", path)), (INTERFACE, Variant("s", interface)), (MEMBER, Variant("s", member)),
                                        (DESTINATION, Variant("s", destination))], signature, args, fds)

    def answer(self, call, signature="", *args):
        self.write(METHOD_RETURN, [(REPLY_SERIAL, Variant("u", call.serial)), (DESTINATION, Variant("s", call.fields[SENDER]))], signature, args)

    def emit(self, path, interface, member, signature="", *args):
        self.write(SIGNAL, [(PATH, Variant("o", path)), (INTERFACE, Variant("s", interface)), (MEMBER, Variant("s", member))], signature, args)

    def refuse(self, call, name, text):
        self.write(ERROR, [(REPLY_SERIAL, Variant("u", call.serial)), (DESTINATION, Variant("s", call.fields[SENDER])), (ERROR_NAME, Variant("s", name))], "s", (text,))

    def receive(self, deadline):
        while True:
            message = self.parse()
            if message:
                return message
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no message from the bus in time")
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except socket.timeout:
                raise TimeoutError("no message from the bus in time") from None
            if not data:
                raise ConnectionError("the bus has closed the connection")
            self.buffer += data

    def parse(self):
        if len(self.buffer) < 16:
            return None
        body_bytes, serial, fields_bytes = struct.unpack_from("<III", self.buffer, 4)
        start = 16 + fields_bytes + (-(16 + fields_bytes) % 8)
        if len(self.buffer) < start + body_bytes:
            return None
        reader = Reader(self.buffer)
        kind = self.buffer[1]
        reader.at = 12
        fields = dict(reader.get("a(yv)"))
        body_reader = Reader(self.buffer[start:start + body_bytes])
        body = [body_reader.get(t) for t in split(fields.get(SIGNATURE, ""))]
        del self.buffer[:start + body_bytes]
        return Message(kind, serial, fields, body)

    def handle(self, message):
        if message.kind == SIGNAL:
            self.signals.append(message)
        elif message.kind in (METHOD_RETURN, ERROR):
            self.replies[message.fields[REPLY_SERIAL]] = message
        elif self.serve:
            self.serve(message)

    def run(self, until, timeout=30):
        """Handles messages until until() is true."""
        deadline = time.monotonic() + timeout
        while not until():
            self.handle(self.receive(deadline))

    def reply(self, serial, timeout=30):
        deadline = time.monotonic() + timeout
        while serial not in self.replies:
            self.handle(self.receive(deadline))
        message = self.replies.pop(serial)
        if message.kind == ERROR:
            raise BusError(message.fields[ERROR_NAME], message.body[0] if message.body else "")
        return message.body[0] if len(message.body) == 1 else message.body or None

    def call(self, destination, path, interface, member, signature="", *args, fds=(), timeout=30):
        return self.reply(self.send(destination, path, interface, member, signature, args, fds), timeout)

    def match(self, rule):
        self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", "s", rule)

    def wait_signal(self, wanted, timeout=30):
        """The first signal, among those that came and those that come, for which wanted(message) is true."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            for message in self.signals[seen:]:
                if wanted(message):
                    return message
            seen = len(self.signals)
            self.handle(self.receive(deadline))
