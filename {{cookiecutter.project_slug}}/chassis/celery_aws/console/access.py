"""Who may use the console: whoever has the token of its address, with a browser on this machine.

The token is exchanged for a cookie that no other site can use. A page of another site that makes the browser send
requests, or that resolves its own name to this machine, is refused by the checks of the headers `Host` and `Origin`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, abort, current_app, redirect, render_template, request, session, url_for

HOSTS = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?", re.ASCII)
"""The names of this machine by which the console can be reached."""

CSRF = "csrf"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    # With `no-referrer`, browsers would send no Origin with forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def protect(app: Flask, token: str, *, read_only: bool) -> None:
    """Restrict an application to browsers that have the token.

    Args:
        app: the application.
        token: what the first request of a browser must have in its address.
        read_only: refuse every request that is not GET or HEAD.
    """
    app.secret_key = secrets.token_bytes(32)
    app.config.update(
        # Cookies are shared by all ports of a machine.
        SESSION_COOKIE_NAME=f"console-{secrets.token_hex(4)}",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Strict",
        CONSOLE_TOKEN=token,
        CONSOLE_READ_ONLY=read_only,
    )
    app.before_request(_check)
    app.after_request(_add_headers)
    app.context_processor(lambda: {"csrf": session.get(CSRF, ""), "read_only": read_only})


def _check() -> Any:
    """Refuse a request, exchange the token, or return None to answer."""
    if not HOSTS.fullmatch(request.host):
        abort(403, "The console answers at 127.0.0.1 and localhost only.")
    if token := request.args.get("token"):
        return _log_in(token)
    if request.endpoint == "static":
        return None
    if not session.get(CSRF):
        abort(403, "Open the address that the command printed: it contains the password.")
    if request.method not in ("GET", "HEAD"):
        _check_change()
    return None


def _log_in(token: str) -> Any:
    if not hmac.compare_digest(token.encode(), current_app.config["CONSOLE_TOKEN"].encode()):
        abort(403, "This address is of a console that has ended. Open the one that the command printed last.")
    if session.get(CSRF):
        return redirect(url_for("queues"))
    session[CSRF] = secrets.token_urlsafe(24)
    # A page instead of a redirect: if a link led here, browsers would not send the cookie with a redirected request.
    return render_template("welcome.html")


def _check_change() -> None:
    if current_app.config["CONSOLE_READ_ONLY"]:
        abort(403, "This console is read-only.")
    origin = urlsplit(request.headers.get("Origin", ""))
    if (origin.scheme, origin.netloc) != (request.scheme, request.host):
        abort(403, "The request is from another site.")
    if not hmac.compare_digest(request.form.get(CSRF, "").encode(), session[CSRF].encode()):
        abort(403, "The form is out of date. Load the page again.")


def _add_headers(response: Response) -> Response:
    response.headers.update(HEADERS)
    return response
