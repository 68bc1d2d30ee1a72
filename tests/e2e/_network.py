"""A network of the test's own: a namespace for each peer and, between them, a switch whose cables are set here.

Each namespace has a TAP device whose other end is a descriptor of this process. The switch takes every frame from one
and hands it to another: late, at a rate, or not at all, as the cable of either says. So TCP meets real delay, loss and
silence, also where the kernel has no `netem`.
"""

import contextlib
import dataclasses
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
BROADCAST = b"\xff" * 6


@dataclasses.dataclass
class Cable:
    """Between one peer and the switch; both directions alike."""
    delay: float = 0.0    # seconds, one way
    jitter: float = 0.0   # further seconds at most, without overtaking
    loss: float = 0.0     # share of the frames that are dropped
    rate: float = 0.0     # bytes a second; 0: unlimited
    queue: float = 0.5    # seconds of frames that wait for the rate; more are dropped
    group: int = 0        # frames pass between cables of one group
    mute: bool = False    # what the peer sends is dropped; what is sent to it arrives


class Unavailable(Exception):
    """This machine cannot have such a network."""


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise Unavailable(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    def __init__(self, peers, seed=1):
        self.cables = [Cable() for _ in range(peers)]
        self.random = random.Random(seed)
        self.taps, self.waiting, self.order = [], [], itertools.count()
        self.last, self.busy = {}, {}  # (from, to): newest delivery; (peer, direction): when the rate is free again
        self.frames = self.dropped = 0
        self.thread, self.ended = None, threading.Event()
        self.undo = contextlib.ExitStack()
        try:
            for peer in range(peers):
                self.plug(peer)
        except (OSError, Unavailable) as problem:
            self.close()
            raise Unavailable(str(problem)) from problem
        self.thread = threading.Thread(target=self.forward)
        self.thread.start()

    def plug(self, peer):
        tap, space = f"tw{os.getpid()}t{peer}", self.space(peer)
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.undo.callback(os.close, descriptor)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", tap.encode(), IFF_TAP | IFF_NO_PI))
        self.taps.append(descriptor)
        ip("netns", "add", space)
        self.undo.callback(subprocess.run, ["ip", "netns", "del", space], check=True)
        ip("link", "set", tap, "netns", space, "name", "eth0", "address", self.mac(peer).hex(":"))
        ip("-n", space, "address", "add", f"{self.host(peer)}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")

    def close(self):
        self.ended.set()
        if self.thread:
            self.thread.join()
        self.undo.close()

    @staticmethod
    def space(peer):
        return f"tw{os.getpid()}p{peer}"

    @staticmethod
    def host(peer):
        return f"10.77.0.{peer + 1}"

    @staticmethod
    def mac(peer):
        return bytes([2, 0, 0, 0, 0, peer + 1])

    def split(self, *groups):
        """Frames pass inside each group only; one group of all heals the network."""
        for number, group in enumerate(groups):
            for peer in group:
                self.cables[peer].group = number

    def forward(self):
        poll = select.epoll()
        for peer, descriptor in enumerate(self.taps):
            poll.register(descriptor, select.EPOLLIN)
        ports = {descriptor: peer for peer, descriptor in enumerate(self.taps)}
        while not self.ended.is_set():
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, _, to, frame = heapq.heappop(self.waiting)
                self.deliver(to, frame)
            timeout = min(0.05, self.waiting[0][0] - now) if self.waiting else 0.05
            for descriptor, _ in poll.poll(timeout):
                for frame in received(descriptor):
                    self.route(ports[descriptor], frame)
        poll.close()

    def route(self, source, frame):
        for to in range(len(self.taps)):
            if to != source and frame[:6] in (BROADCAST, self.mac(to)):
                self.send(source, to, frame)

    def send(self, source, to, frame):
        one, other = self.cables[source], self.cables[to]
        self.frames += 1
        if one.mute or one.group != other.group or self.random.random() < one.loss + other.loss:
            self.dropped += 1
            return
        at = time.monotonic()
        for peer, cable, direction in ((source, one, "up"), (to, other, "down")):
            if cable.rate:
                at = max(at, self.busy.get((peer, direction), 0.0)) + len(frame) / cable.rate
                if at - time.monotonic() > cable.queue:
                    self.dropped += 1
                    return
                self.busy[peer, direction] = at
        at += one.delay + other.delay + self.random.uniform(0, one.jitter + other.jitter)
        at = self.last[source, to] = max(at, self.last.get((source, to), 0.0))
        heapq.heappush(self.waiting, (at, next(self.order), to, frame))

    def deliver(self, to, frame):
        try:
            os.write(self.taps[to], frame)
        except BlockingIOError:
            self.dropped += 1  # the receiver's queue is full, as a switch's may be


def received(descriptor):
    while True:
        try:
            yield os.read(descriptor, 65536)
        except BlockingIOError:
            return
