"""Loopback servers that send given data, stall, break off or claim a wrong size; and frames as cameras send them."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Any

from PIL import Image
from videos import numbered_frame

OK = b"HTTP/1.0 200 OK\r\n"
Answer = Callable[[socket.socket, int], None]  # the connection, and its number, from 0


class Server:
    """An HTTP server for tests.

    Attributes:
        url: of anything on it.
        num_connections: that it has accepted.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer, self.num_connections = answer, 0
        self.stop = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/live"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.connections.append(connection)
                number, self.num_connections = self.num_connections, self.num_connections + 1
                threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with suppress(OSError), connection:
            connection.recv(4096)
            self.answer(connection, number)

    def close(self) -> None:
        self.stop.set()
        for one in (self.listener, *self.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """Run a server for as long as the block lasts."""
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()


def answering(head: bytes, body: bytes = b"") -> Answer:
    """Answer with these bytes and close the connection."""
    return lambda connection, _: connection.sendall(head + b"\r\n" + body)


def silent(connection: socket.socket, _: int) -> None:
    """Answer nothing, until the client leaves."""
    with suppress(OSError):
        connection.recv(1)


def jpegs(numbers: Iterable[int], size: tuple[int, int] = (64, 48)) -> Iterator[bytes]:
    """Yield frames as JPEG that show their number."""
    for number in numbers:
        file = BytesIO()
        Image.fromarray(numbered_frame(number, size)).save(file, "JPEG", quality=95)
        yield file.getvalue()


def send_mjpeg(connection: Any, images: Iterable[bytes], fps: float | None = None) -> None:
    """Send the head of an MJPEG stream and its images, `fps` a second; None: as fast as they are taken."""
    connection.sendall(OK + b"Content-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
    began_s = time.monotonic()
    for number, image in enumerate(images):
        if fps:
            time.sleep(max(0.0, began_s + number / fps - time.monotonic()))
        length = str(len(image)).encode()
        connection.sendall(
            b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: " + length + b"\r\n\r\n" + image + b"\r\n"
        )


def send_paced(connection: Any, content: bytes, duration_s: float) -> None:
    """Send an MPEG-TS file in the time that it lasts."""
    connection.sendall(OK + b"Content-Type: video/mp2t\r\n\r\n")
    began_s, step = time.monotonic(), 188 * 4
    for start in range(0, len(content), step):
        time.sleep(max(0.0, began_s + start / len(content) * duration_s - time.monotonic()))
        connection.sendall(content[start : start + step])


def serve_rtsp(connection: socket.socket, content: bytes, duration_s: float) -> None:
    """Answer an RTSP client, whose first request was read, and send an MPEG-TS file in RTP through the connection."""
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
    answers = {
        "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}",
        "SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
        "PLAY": "Session: 1\r\n\r\n",
    }
    method, number = "OPTIONS", "1"  # what was read
    while method != "PLAY":
        connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{answers[method]}".encode())
        request = connection.recv(4096).decode()
        method, number = request.split()[0], request.partition("CSeq: ")[2].split()[0]
    connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n{answers[method]}".encode())
    began_s, size = time.monotonic(), 7 * 188
    for index, start in enumerate(range(0, len(content), size)):
        elapsed_s = start / len(content) * duration_s
        time.sleep(max(0.0, began_s + elapsed_s - time.monotonic()))
        payload = content[start : start + size]
        header = struct.pack(">BBHII", 0x80, 33, index, round(elapsed_s * 90_000), 1)
        connection.sendall(struct.pack(">cBH", b"$", 0, len(header) + len(payload)) + header + payload)
