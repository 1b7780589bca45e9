"""Predictions to an address of one's own, by HTTP POST.

    POST /path HTTP/1.1, application/json: {"predictions": [{"at": ..., "label": ..., ...}, ...]}

To another machine it goes by HTTPS alone. No redirect is followed and no proxy is asked: predictions go where the
settings say and nowhere else.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from edge_agent.inference.outputs.json_lines import line_of
from edge_agent.inference.seams import LivePrediction

_TIMEOUT_S = 5.0


class WebhookError(OSError):
    """Whoever listens did not take the predictions."""


class Webhook:
    """Posts predictions to an address; one connection for each post, so that nothing is half open.

    Args:
        url: as `OutputSettings` takes it.
        context: of TLS; None: what the system trusts.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._is_secure = parts.hostname or "", parts.port, parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._context = context or (ssl.create_default_context() if self._is_secure else None)

    def write(self, predictions: Sequence[LivePrediction]) -> None:
        """Post them all at once.

        Raises:
            WebhookError: the answer was no success.
            OSError: nobody is there, or it does not prove who it is.
        """
        body = b'{"predictions":[' + b",".join(line_of(one).rstrip() for one in predictions) + b"]}"
        connection = self._connection()
        try:
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if not 200 <= answer.status < 300:
                raise WebhookError(f"{self._host} answered {answer.status} {answer.reason}")
        except HTTPException as error:
            raise WebhookError(f"{self._host} does not speak HTTP: {error!r}") from error
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        if self._context is not None:
            return HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S, context=self._context)
        return HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
