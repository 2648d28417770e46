#!/usr/bin/env python3
"""Receives Longline's webhook: checks the signature, and prints what would go to a push gateway.

    WEBHOOK_SECRET=<the secret in hexadecimal> python3 webhook-receiver.py 8080

Put a TLS proxy in front of it, or use it on the server's own machine.
"""

import hashlib
import hmac
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# By their names, so that two keys may be valid while one takes the other's place.
KEYS = {os.environ.get("WEBHOOK_KEY", "1"): bytes.fromhex(os.environ["WEBHOOK_SECRET"])}
WINDOW = 300  # seconds: an older request may be one that somebody sends again
LONGEST = 65536  # bytes: the server's requests are shorter


def is_genuine(headers, body):
    secret = KEYS.get(headers.get("Longline-Key", ""))
    timestamp = headers.get("Longline-Timestamp", "")
    if secret is None or not re.fullmatch("[0-9]{1,15}", timestamp) or abs(time.time() - int(timestamp)) > WINDOW:
        return False
    expected = hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    # As bytes: what a stranger sends need not be ASCII.
    return hmac.compare_digest(("v1=" + expected).encode(), headers.get("Longline-Signature", "").encode())


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds: a client that says nothing holds no thread for longer

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or int(length) > LONGEST:
            # What follows is not read, and so no next request.
            self.close_connection = True
            return self.answer(413 if length else 411)
        body = self.rfile.read(int(length))
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
