"""Accounts and rights at a Mosquitto, as its files write them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

import pytest

from tests.mosquitto import Mosquitto, MosquittoError, MosquittoFactory

_SALT = b"0123456789ab"
_ROUNDS = 101
_PLUGINS = (  # Mosquitto's own image, Debian
    "/usr/lib/mosquitto_dynamic_security.so",
    f"/usr/lib/{os.uname().machine}-linux-gnu/mosquitto_dynamic_security.so",
)


def _digest(password: str) -> str:
    return base64.b64encode(hashlib.pbkdf2_hmac("sha512", password.encode(), _SALT, _ROUNDS)).decode()


def password_file(**passwords: str) -> str:
    """Return the text of a `password_file` with these accounts."""
    salt = base64.b64encode(_SALT).decode()
    return "".join(f"{name}:$7${_ROUNDS}${salt}${_digest(password)}\n" for name, password in passwords.items())


ADMIN = ("admin", "the admin's own")
"""The account that may change rights at a `refusing_broker`."""


def refusing_broker(make: MosquittoFactory, *, account: tuple[str, str], topic: str) -> Mosquitto:
    """Start a broker that lets an account do everything but subscribe to `topic`; others may do everything.

    An `acl_file` does not do: with it, Mosquitto grants every subscription and then sends nothing.
    """
    allowed = dict.fromkeys(("publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"), True)
    rights = {
        "defaultACLAccess": allowed,
        "roles": [
            {"rolename": "admin", "acls": [_right("publishClientSend", "$CONTROL/#", allow=True)]},
            {"rolename": "denied", "acls": [_right("subscribeLiteral", topic, allow=False)]},
        ],
        "clients": [_client(ADMIN, "admin"), _client(account, "denied")],
    }
    files = {"rights.json": json.dumps(rights)}
    for plugin in _PLUGINS:
        try:
            return make(f"plugin {plugin}\nplugin_opt_config_file rights.json", files=files)
        except MosquittoError:  # where it is depends on who has packed this Mosquitto
            continue
    pytest.fail(f"Mosquitto has no dynamic security plugin in {' or '.join(_PLUGINS)}", pytrace=False)


def _right(kind: str, topic: str, *, allow: bool) -> dict[str, Any]:
    return {"acltype": kind, "topic": topic, "allow": allow, "priority": 0}


def _client(account: tuple[str, str], role: str) -> dict[str, Any]:
    name, password = account
    salt = base64.b64encode(_SALT).decode()
    known = {"username": name, "password": _digest(password), "salt": salt, "iterations": _ROUNDS}
    return known | {"roles": [{"rolename": role}]}


def allowing(topic: str) -> tuple[str, str]:
    """Return what the admin publishes, and where, so that a `refusing_broker` grants the subscription."""
    command = {"command": "removeRoleACL", "rolename": "denied", "acltype": "subscribeLiteral", "topic": topic}
    return "$CONTROL/dynamic-security/v1", json.dumps({"commands": [command]})
