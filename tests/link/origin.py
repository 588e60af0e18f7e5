"""An honest server of one folder of blobs, with ranges and ETags, in a process of its own: `python -m tests.link.origin FOLDER [HOST]`; prints its port."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def serve(folder: Path, host: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = (folder / self.path.rpartition("/")[2]).read_bytes()
            wanted = self.headers.get("range")
            first = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
            self.send_response(206 if wanted else 200)
            self.send_header("etag", '"one"')
            if wanted:
                self.send_header("content-range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.send_header("content-length", str(len(body) - first))
            self.end_headers()
            self.wfile.write(body[first:])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), *(sys.argv[2:] or ["127.0.0.1"]))
