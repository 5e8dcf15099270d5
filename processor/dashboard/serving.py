"""The web server: routes, sign-in, and from start to end."""

from __future__ import annotations

import logging
import signal
import socket
from html import escape
from typing import Annotated, Final

import uvicorn
from fastapi import FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from nicegui import app, ui

from processor.dashboard import fleet_page, processor_page
from processor.dashboard.access import Access
from processor.dashboard.guard import Guard
from processor.dashboard.options import Options
from processor.dashboard.shell import COOKIE, Desk, Visitor, serve_static
from processor.dashboard.watching import Watcher
from processor.errors import MladeError

log = logging.getLogger(__name__)

_RECONNECT: Final = 15.0
"""Seconds that a page may be without its connection before it is built anew."""


def run(options: Options) -> int:
    """Serve until SIGTERM or Ctrl-C; return the exit code. Main thread only, because it takes the signals.

    Raises:
        MladeError: nobody can listen there, or a TLS file cannot be used.
    """
    failed = False

    def fail() -> None:
        nonlocal failed
        failed = server.should_exit = True

    watcher = Watcher(options.broker, options.prefixes, changes=not options.read_only, on_failure=fail)
    access = Access(password=options.password, read_only=options.read_only)
    desk = Desk(watcher, access, options.shown_broker)
    with _listen(options.host, options.port) as listening:
        config = uvicorn.Config(
            _application(desk, options.host, secure=options.cert is not None),
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=options.cert,
            ssl_keyfile=options.key,
            timeout_graceful_shutdown=1,
        )
        try:
            config.load()
        except OSError as error:  # ssl.SSLError is one
            raise MladeError(f"--cert {options.cert} with --key {options.key} cannot be used: {error}.") from error
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _nothing)  # uvicorn ends at the first, and raises it again when it has ended
        for warning in options.warnings:
            log.warning("%s", warning)
        scheme, host = "https" if options.cert else "http", f"[{options.host}]" if ":" in options.host else options.host
        log.info("The dashboard is on %s://%s:%d/; Ctrl-C ends it.", scheme, host, listening.getsockname()[1])
        server = uvicorn.Server(config)
        # Not before the server has started: NiceGUI then walks over every object there is, and a tuple that another
        # thread is making at that moment cannot be finished (CPython's _PyTuple_Resize).
        app.on_startup(watcher.start)
        server.run(sockets=[listening])
        watcher.stop()
    return int(failed)


def _nothing(_number: int, _frame: object) -> None:
    """Take a signal."""


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(where)
        listening.listen()
    except OSError as error:
        raise MladeError(f"--listen {host}:{port} cannot be used: {error.strerror or error}.") from error
    return listening


def _application(desk: Desk, host: str, *, secure: bool) -> Guard:
    application = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_static()
    _sign_in(application, desk, secure=secure)

    def visitor(request: Request) -> Visitor:
        return Visitor(desk.access, request.cookies.get(COOKIE))

    @ui.page("/")
    def first(request: Request) -> None:
        fleet_page.build(desk, visitor(request))

    @ui.page("/processor/{root:path}")
    def one(request: Request, root: str, tab: str = "", model: str = "") -> None:
        processor_page.build(desk, visitor(request), root, tab, model)

    ui.run_with(
        application,
        title="mlade",
        dark=None,
        language="en-US",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=_RECONNECT,
        favicon=_ICON,
    )
    open_to_all = desk.access.read_only or desk.access.asks
    return Guard(application, hosts=None if open_to_all else frozenset({"localhost", "127.0.0.1", "::1", host}))


_ICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#0b66b2"/>'
    '<path d="M5 22h4l3-12 5 15 4-10 2 7h4" fill="none" stroke="#fff" stroke-width="2.4" '
    'stroke-linejoin="round"/></svg>'
)


def _sign_in(application: FastAPI, desk: Desk, *, secure: bool) -> None:
    access = desk.access

    @application.get("/sign-in")
    def ask(following: Annotated[str, Query(alias="next")] = "/") -> Response:
        return HTMLResponse(_form(following, ""))

    @application.post("/sign-in")
    def answer(
        name: Annotated[str, Form()] = "",
        password: Annotated[str, Form()] = "",
        following: Annotated[str, Form()] = "/",
    ) -> Response:
        if access.too_many_guesses:
            return HTMLResponse(_form(following, "Too many wrong passwords; try again in a minute."), 429)
        token = access.sign_in(name, password)
        if token is None:
            return HTMLResponse(_form(following, "That is not the password."), 401)
        response = RedirectResponse(_own(following), 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure)
        return response

    @application.post("/sign-out")
    def leave(request: Request) -> Response:
        access.sign_out(request.cookies.get(COOKIE))
        response = RedirectResponse("/", 303)
        response.delete_cookie(COOKIE)
        return response


def _own(path: str) -> str:
    """Return a path to go to after a sign-in; the first page where it would lead elsewhere."""
    return path if path.startswith("/") and not path.startswith(("//", "/\\")) else "/"


def _form(following: str, problem: str) -> str:
    said = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in · mlade</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/static/style.css">
<link rel="icon" href="/favicon.ico"></head><body class="sign-in"><main><h1>Sign in to change things</h1>
<p class="muted">Reading needs no password. Your name stands beside the filters that you set.</p>{said}
<form method="post" action="/sign-in"><input type="hidden" name="following" value="{escape(following)}">
<label>Your name<input type="text" name="name" autocomplete="username" maxlength="40" required></label>
<label>Password<input type="password" name="password" autocomplete="current-password" required autofocus></label>
<button>Sign in</button> <a href="{escape(_own(following))}">Back</a></form></main></body></html>"""
