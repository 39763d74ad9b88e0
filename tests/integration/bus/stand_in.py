# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service on the test's bus that stands in for one of the system's, on a thread and a connection of its own."""
import threading

from tiny_dbus import Connection


class StandIn:
    def __init__(self, address, name):
        self.stop = False
        self.bus = Connection(address)
        self.bus.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "RequestName", "su", name, 0)
        self.bus.serve = self.serve
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def serve(self, call):
        raise NotImplementedError

    def loop(self):
        while not self.stop:
            try:
                self.bus.run(lambda: self.stop, timeout=0.1)
            except TimeoutError:
                pass

    def close(self):
        self.stop = True
        self.thread.join()
        self.bus.close()
