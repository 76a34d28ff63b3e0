#!/usr/bin/env python3
"""Memory and waiting at a huge mailbox: what each command costs tambod, and how long another session waits meanwhile.

A mailbox is made by COPY, which doubles it; then each command runs over all of it. For each: how much more memory of
its own tambod had than before, the most it ever held (VmHWM, with the pages of the index that it has looked at), the
longest time that a NOOP of another user on the same worker took, and how much of that time the worker was at work (its
CPU time, of two slices at the most): the rest is the machine's. Bars: --extra-mib and --busy-ms; a SORT or THREAD may
hold 64 bytes a message more, and a change as much as the index changes between two checkpoints.

    tests/clients/test_bounds.py                              # 50,000 messages
    tests/clients/test_bounds.py --messages 1000000 --busy-ms 10    # the long form: half a minute
"""
import argparse
import glob
import multiprocessing
import os
import re
import socket
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import tambo  # noqa: E402
import wire  # noqa: E402

SEED_MESSAGES = 1000
MEMTABLE_MIB = 64  # checkpoint.c: DIRTY_MAX
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024


def thread_of_worker(pid):
    """The schedstat file of the one worker's thread: the busiest of the process once it has worked."""
    def cpu_ns(path):
        with open(path, encoding="ascii") as f:
            return int(f.read().split()[0])
    return max(glob.glob("/proc/%d/task/*/schedstat" % pid), key=cpu_ns)


class Probe:
    """A process of its own that says NOOP all the time, and remembers the worst wait since it was asked."""

    def __init__(self, daemon):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self.run, daemon=True,
                                               args=(other, daemon.port("imap"), daemon.process.pid))
        self.process.start()
        self.pipe.recv()

    @staticmethod
    def run(pipe, port, pid):
        sock = socket.create_connection(("127.0.0.1", port), 120)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = sock.makefile("rb")
        replies.readline()
        sock.sendall(b'a LOGIN "probe" "%s"\r\n' % tambo.PASSWORD.encode())
        replies.readline()
        with open(thread_of_worker(pid), "rb", 0) as stat, open("/proc/%d/statm" % pid, "rb", 0) as memory:
            worst = (0.0, 0.0, 0)
            pipe.send(None)
            while True:
                begin, cpu = time.monotonic(), int(os.pread(stat.fileno(), 100, 0).split()[0])
                sock.sendall(b"n NOOP\r\n")
                replies.readline()
                wait = time.monotonic() - begin
                busy = (int(os.pread(stat.fileno(), 100, 0).split()[0]) - cpu) / 1e9
                resident, shared = map(int, os.pread(memory.fileno(), 100, 0).split()[1:3])
                worst = (max(worst[0], wait), max(worst[1], busy), max(worst[2], (resident - shared) * PAGE_KIB))
                if pipe.poll(0.0005):
                    if pipe.recv() == "end":
                        return
                    pipe.send(worst)
                    worst = (0.0, 0.0, 0)

    def worst(self):
        """(wait, work of the worker, both in seconds, own memory in KiB): the greatest since the last time."""
        self.pipe.send("tell")
        return self.pipe.recv()

    def end(self):
        self.pipe.send("end")
        self.process.join(10)


class Reader(wire.Imap):
    """Answers are counted, not kept."""

    def drain(self, command, slow_s=0):
        """Run a command; (bytes, tagged). slow_s: nothing is read for so long."""
        self.number += 1
        tag = b"t%d " % self.number
        self.send(tag + command + b"\r\n")
        time.sleep(slow_s)
        n, tail, found = 0, b"\r\n", -1
        while True:
            data = self.sock.recv(1 << 20)
            if not data:
                raise wire.Refused("the connection ended in %r" % command)
            n += len(data)
            tail += data
            if found < 0:
                found = tail.find(b"\r\n" + tag)
                tail = tail[found + 2:] if found >= 0 else tail[-len(tag) - 2:]
            if found >= 0 and tail.endswith(b"\r\n"):
                return n, tail[len(tag):]

    def run(self, command, slow_s=0):
        n, tagged = self.drain(command, slow_s)
        if not tagged.startswith(b"OK"):
            raise wire.Refused("%r: %r" % (command, tagged))
        return n


class Bench:
    def __init__(self, args, daemon, checks):
        self.args, self.daemon, self.checks = args, daemon, checks
        self.probe = Probe(daemon)

    def measure(self, name, work, extra_mib=None):
        """Run it, note what it cost, and hold that against the bars."""
        with self.checks.step(name):
            base = wire.memory_kib(self.daemon.process, "VmRSS")
            fresh = wire.reset_peak(self.daemon.process)
            own_before = wire.memory_kib(self.daemon.process, "RssAnon")
            self.probe.worst()
            begin = time.monotonic()
            work()
            took = time.monotonic() - begin
            wait, busy, own = self.probe.worst()
            extra = (own - own_before) / 1024
            peak = wire.memory_kib(self.daemon.process) / 1024
            print("     %-28s %7.2f s  memory +%5.1f MiB, VmHWM %5.1f (+%5.1f)  NOOP %6.1f ms  worker %6.1f ms" % (
                name, took, extra, peak, peak - base / 1024 if fresh else 0, wait * 1e3, busy * 1e3))
            bar = self.args.extra_mib if extra_mib is None else extra_mib
            assert extra <= bar, "%.1f MiB more memory, bar %d" % (extra, bar)
            assert busy * 1e3 <= self.args.busy_ms, "the worker was held for %.1f ms, bar %d" % (
                busy * 1e3, self.args.busy_ms)

    def fill(self, imap):
        """SEED_MESSAGES small ones, then COPY until there are enough."""
        for i in range(0, SEED_MESSAGES, 100):
            for k in range(i, i + 100):
                text = (b"From: a%d@example.test\r\nSubject: %d of a thread\r\nMessage-ID: <%d@example.test>\r\n"
                        b"References: <%d@example.test>\r\n\r\nnumber %d\r\n" % (k % 37, k % 211, k, k // 7, k))
                imap.send(b"a%d APPEND INBOX {%d+}\r\n" % (k, len(text)) + text + b"\r\n")
            for k in range(i, i + 100):
                while not imap.line().startswith(b"a%d OK" % k):
                    pass
        imap.command(b"SELECT INBOX")
        n = SEED_MESSAGES
        while n < self.args.messages:
            more = min(n, self.args.messages - n)
            imap.run(b"UID COPY 1:%d INBOX" % more)
            n += more
        imap.run(b"NOOP")


def commands(bench, imap):
    """What reads: the mailbox is whole, its UIDs have no gap."""
    n = bench.args.messages
    bench.measure("SELECT", lambda: imap.run(b"SELECT INBOX"))
    bench.measure("FETCH 1:* FLAGS, read late", lambda: imap.run(b"FETCH 1:* (UID FLAGS)", 2))
    bench.measure("FETCH 1:* ENVELOPE", lambda: imap.run(b"FETCH 1:* (ENVELOPE)"))
    bench.measure("SEARCH ALL, read late", lambda: imap.run(b"SEARCH ALL", 1))
    bench.measure("UID SEARCH 1:4294967295", lambda: imap.run(b"UID SEARCH UID 1:4294967295 UNDELETED"))
    bench.measure("SEARCH scattered", lambda: imap.run(b"UID SEARCH SUBJECT \"7 of\""))
    order = bench.args.extra_mib + n * 64 // (1 << 20)
    bench.measure("UID SORT ARRIVAL", lambda: imap.run(b"UID SORT (ARRIVAL) UTF-8 ALL"), extra_mib=order)
    bench.measure("UID SORT SUBJECT", lambda: imap.run(b"UID SORT (SUBJECT) UTF-8 ALL"), extra_mib=order)
    bench.measure("UID THREAD REFERENCES", lambda: imap.run(b"UID THREAD REFERENCES UTF-8 ALL"), extra_mib=order)
    bench.measure("STATUS", lambda: imap.run(b"STATUS INBOX (MESSAGES UNSEEN SIZE DELETED)"))


def changes(bench, imap):
    """What writes. A second session of the account has the mailbox open and is told late, a third one while idle."""
    n = bench.args.messages

    def change(name, work):
        bench.measure(name, work, extra_mib=bench.args.extra_mib + MEMTABLE_MIB)

    with Reader(bench.daemon, "big") as late, Reader(bench.daemon, "big") as idle:
        late.run(b"SELECT INBOX")
        idle.run(b"SELECT INBOX")
        idle.send(b"i IDLE\r\n")
        idle.line()
        change("STORE 1:* +FLAGS.SILENT", lambda: imap.run(b"STORE 1:* +FLAGS.SILENT (\\Flagged)"))
        change("NOOP, told of all flags", lambda: late.run(b"NOOP"))
        idle.close()
        change("COPY 1:4294967295", lambda: imap.run(b"UID COPY 1:4294967295 Archive"))
        with Reader(bench.daemon, "big") as other:
            other.run(b"SELECT Archive")
            change("STORE, every other one", lambda: other.run(
                b"UID STORE %s +FLAGS.SILENT (\\Deleted)" % b",".join(b"%d" % u for u in range(1, 12000, 2))))
            other.run(b"EXPUNGE")
            bench.measure("SELECT with gaps", lambda: other.run(b"SELECT Archive"))
            other.run(b"UID COPY %d:* Archive" % (n - 5999))
        change("MOVE half", lambda: imap.run(b"UID MOVE 1:%d Trash" % (n // 2)))
        change("NOOP, told of the removed", lambda: late.run(b"NOOP"))
    imap.run(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
    change("EXPUNGE", lambda: imap.run(b"EXPUNGE"))


def whole_boxes(bench, imap):
    """RENAME of INBOX, which moves its messages, and deleting the account."""
    imap.run(b"SELECT Archive")
    imap.run(b"UID COPY 1:4294967295 INBOX")
    imap.run(b"UNSELECT")
    bench.measure("RENAME INBOX", lambda: imap.run(b"RENAME INBOX Old"), bench.args.extra_mib + MEMTABLE_MIB)
    untagged, _ = imap.command(b"STATUS Old (MESSAGES)")
    have = int(re.search(rb"MESSAGES (\d+)", untagged[0][0]).group(1))
    with bench.checks.step("RENAME moved all"):
        wire.equal(have, bench.args.messages)
    for i in range(0, bench.args.mailboxes, 100):
        names = range(i, min(i + 100, bench.args.mailboxes))
        imap.send(b"".join(b"m%d CREATE many/box%d\r\n" % (k, k) for k in names))
        for k in names:
            while not imap.line().startswith(b"m%d OK" % k):
                pass
    bench.measure("account delete", lambda: bench.daemon.tambo("account", "delete", "--yes", "big"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wire.arguments(parser)
    parser.add_argument("--messages", type=int, default=50000)
    parser.add_argument("--mailboxes", type=int, default=2000)
    parser.add_argument("--extra-mib", type=int, default=32)
    parser.add_argument("--busy-ms", type=int, default=25)
    args = parser.parse_args()
    checks = wire.Checks(args.verbose)
    config = {"workers": "1", "imap_progress_s": "3600"}
    with tambo.Daemon(args.build, args.io, config, accounts=["big", "probe"], init=("--shards", "1")) as daemon:
        with Reader(daemon, "big") as imap:
            begin = time.monotonic()
            bench = Bench(args, daemon, checks)
            bench.fill(imap)
            print("     %d messages in %.1f s, VmHWM %.1f MiB" % (
                args.messages, time.monotonic() - begin, wire.memory_kib(daemon.process) / 1024))
            commands(bench, imap)
            changes(bench, imap)
            whole_boxes(bench, imap)
        bench.probe.end()
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
