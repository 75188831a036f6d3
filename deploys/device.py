"""Shows how a device gets into the VPN, once. Run: pyinfra inventory.py deploys/device.py --data device=phone

A deploy, because the hub has to say its public key. Nothing is changed anywhere, and no private key is kept: whoever
has not taken it from the screen makes another one. A key that the device made itself: --data key=… Everything through
the tunnel: --data tunnel=full
"""

from __future__ import annotations

from pyinfra import host

from ringfence.operations.device import show

show(host)
