"""Run code while the kernel tells of every network socket that it, or a child of it, asks for.

    python no_network.py CODE

Each is refused and named on standard output; the exit code is then 1. Nothing that is native, or in
a process started by a library, gets around it (seccomp's user notifications, Linux 5.0 and newer).
"""

import ctypes
import os
import platform
import struct
import sys
import threading
from fcntl import ioctl
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
FILTER_MODE, NEW_LISTENER = 1, 1 << 3
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000
RECEIVE, SEND = 0xC0502100, 0xC0182101
SECCOMP, SOCKET = {"x86_64": (317, 41), "aarch64": (277, 198)}.get(platform.machine(), (0, 0))
AF_INET, AF_INET6, EPERM = 2, 10, 1
UNSUPPORTED = 77  # exit code

asked = []


def watch_sockets():
    """From here on, every ``socket(AF_INET or AF_INET6)`` is refused, and noted in `asked`."""
    program = [
        (LOAD, 0, 0, 0),  # the number of the system call
        (EQUAL, 0, 3, SOCKET),
        (LOAD, 0, 0, 16),  # its first argument
        (EQUAL, 2, 0, AF_INET),
        (EQUAL, 1, 0, AF_INET6),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, NOTIFY),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    place = ctypes.create_string_buffer(header)
    listener = libc.syscall(SECCOMP, FILTER_MODE, NEW_LISTENER, place)
    if listener < 0:
        print("no seccomp here:", os.strerror(ctypes.get_errno()))
        sys.exit(UNSUPPORTED)
    threading.Thread(target=_answer, args=[listener], daemon=True).start()


def _answer(listener):
    while True:
        notice = bytearray(80)
        try:
            ioctl(listener, RECEIVE, notice)
            number, process = struct.unpack_from("QI", notice)
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[:3]
            asked.append(b" ".join(command).decode())
            ioctl(listener, SEND, bytearray(struct.pack("QqiI", number, 0, -EPERM, 0)))
        except OSError:  # whoever asked is gone
            continue


if __name__ == "__main__":
    if not SECCOMP:
        sys.exit(UNSUPPORTED)
    watch_sockets()
    exec(sys.argv[1])
    for who in asked:
        print("asked for a network socket:", who)
    sys.exit(1 if asked else 0)
