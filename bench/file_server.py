"""Serves the files of a folder as the blobs of a control plane, as cheaply as the system can (sendfile), on a port that it prints."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(folder: Path) -> None:
    """Serve until the process is ended."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = folder / self.path.rpartition("/")[2]
            size = path.stat().st_size
            # A device that kept the index of a payload asks for what comes after it.
            wanted = self.headers.get("range")
            at = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            if wanted:
                self.send_header("content-range", f"bytes {at}-{size - 1}/{size}")
            self.send_header("content-length", str(size - at))
            self.end_headers()
            self.wfile.flush()
            with path.open("rb") as file:
                while at < size:
                    at += os.sendfile(self.connection.fileno(), file.fileno(), at, 1 << 20)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
