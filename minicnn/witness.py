"""A process beside the ranks of one machine that says which of them was lost: by then, the launcher has ended them all.

Nothing but the standard library is imported, so that it starts at once: python witness.py SOCKET COUNT. Each rank
connects and tells its number, later perhaps where the state of its training is, and "bye" when it leaves as it should.
"""

import os
import selectors
import socket
import sys
from typing import cast


def main(path: str, count: int) -> int:
    """Listen at a socket until `count` ranks have left; return 1 if one was lost."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(count)
    print("ready", flush=True)
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    names, state, gone = {}, "", 0
    while gone < count:
        for key, _ in selector.select():
            if key.fileobj is server:
                connection = server.accept()[0]
                selector.register(connection, selectors.EVENT_READ, "")
                continue
            connection = cast(socket.socket, key.fileobj)
            told = connection.recv(4096).decode(errors="replace")
            for line in told.splitlines():
                word, _, rest = line.partition(" ")
                if word == "rank":
                    names[connection] = rest
                elif word == "state":
                    state = rest
                elif word == "end":  # a rank has told by itself what went wrong
                    return 0
                elif word == "bye":
                    names[connection] = ""
            if not told:
                selector.unregister(connection)
                gone += 1
                if names.get(connection):
                    print(line_of_loss(names[connection], state), file=sys.stderr, flush=True)
                    return 1
    return 0


def line_of_loss(rank: str, state: str) -> str:
    """Return what a person needs to know.

    >>> line_of_loss("2", "")
    'error: rank 2 was lost, and with it the job: it was killed, or had no memory left. Start the training anew.'
    """
    lost = f"error: rank {rank} was lost, and with it the job: it was killed, or had no memory left."
    if not os.path.exists(state):
        return f"{lost} Start the training anew."
    return f"{lost} The last finished epoch is in {state}: go on from there with --resume, or fit(resume=...)."


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2])))
