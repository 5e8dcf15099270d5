"""What belongs beside the files in mosquitto/secured: users' passwords."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "mosquitto"
_SALT = b"twelve bytes"


def password(user: str) -> str:
    """Return a user's password."""
    return f"{user}'s secret"


def passwords(users: Iterable[str]) -> str:
    """Return the password file, as mosquitto_passwd makes it."""
    salt = base64.b64encode(_SALT).decode()
    lines = []
    for user in users:
        digest = hashlib.pbkdf2_hmac("sha512", password(user).encode(), _SALT, 101)
        lines.append(f"{user}:$7$101${salt}${base64.b64encode(digest).decode()}\n")
    return "".join(lines)
