"""A plugin: any HTTP server that takes POST and answers with JSON. Nothing but Python is needed.

    python3 examples/plugin.py 9000

After a fault the engine may call again, always with the same idempotency key. A plugin does
the work of a key once and gives the same answer to every call.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A real plugin keeps these where a crash leaves them, in one transaction with the work itself.
answers = {}


class Plugin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers["idempotency-key"]
        if key not in answers:
            print(f"called at {self.path} with {json.dumps(body)}", flush=True)
            answers[key] = json.dumps({"done": True}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answers[key])))
        self.end_headers()
        self.wfile.write(answers[key])

    def log_message(self, *_):
        """Prints nothing of its own for a request."""


with ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Plugin) as server:
    print(f"listening at http://127.0.0.1:{sys.argv[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
