#!/usr/bin/env python3
"""Receives Longline's webhook: checks the signature, and prints what would go to a push gateway.

    WEBHOOK_SECRET=<the secret in hexadecimal> python3 webhook-receiver.py 8080

Put a TLS proxy in front of it, or use it on the server's own machine.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# By their names, so that two keys may be valid while one takes the other's place.
KEYS = {os.environ.get("WEBHOOK_KEY", "1"): bytes.fromhex(os.environ["WEBHOOK_SECRET"])}
WINDOW = 300  # seconds: an older request may be one that somebody sends again


def is_genuine(headers, body):
    secret = KEYS.get(headers.get("Longline-Key", ""))
    timestamp = headers.get("Longline-Timestamp", "")
    if secret is None or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > WINDOW:
        return False
    expected = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest("v1=" + expected, headers.get("Longline-Signature", ""))


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        if not is_genuine(self.headers, body):
            return self.answer(401)
        news = json.loads(body)
        if news.get("cancel"):
            # Here: the push that is shown with news["collapse"] is removed, unless one with a higher offset took its place.
            print(news["user"], "has seen", news["conversation"], flush=True)
            return self.answer(204)
        # Here: the push tokens of news["user"], each sent a push with news["collapse"] as its collapse key
        # (apns-collapse-id, or FCM's collapse_key). Remember news["id"] for a while: the same one may come twice.
        print(news["user"], "has", news["count"], "new in", news["conversation"], flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print("listening on", server.server_port, flush=True)
    server.serve_forever()
