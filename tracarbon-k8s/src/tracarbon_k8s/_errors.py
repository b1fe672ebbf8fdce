"""What may go wrong between here and the API server.

```
ApiError
├── ApiUnconfigured   nobody says which cluster, or how to get in
├── ApiUnreachable    refused, timed out, reset, TLS, or the server says that it cannot now
├── ApiDenied         401 and 403: who one is, or what one may do
├── ApiAbsent         the metrics API is not installed
├── ApiGone           410: the list has changed too much to go on with it
└── ApiGarbled        the answer is not what it should be
```
"""

from __future__ import annotations


class ApiError(Exception):
    """The API server did not give what was asked for. Its message names the server, never a secret."""


class ApiUnconfigured(ApiError):
    """There is no cluster to ask, or its configuration cannot be used."""


class ApiUnreachable(ApiError):
    """The server is away, or says that it cannot answer now."""


class ApiDenied(ApiError):
    """The server does not let us: the message says what is missing."""


class ApiAbsent(ApiError):
    """The cluster has no such API."""


class ApiGone(ApiError):
    """The rest of a list is gone."""


class ApiGarbled(ApiError):
    """The answer makes no sense."""
