"""The typed HTTP client: ``from serve_app.client import Client, AsyncClient``."""

from serve_app.client.api_errors import NotRunning
from serve_app.client.async_client import AsyncClient
from serve_app.client.client import Client
from serve_app.client.connection import Connection, find_connection
from serve_app.client.retries import Retries

__all__ = ["AsyncClient", "Client", "Connection", "NotRunning", "Retries", "find_connection"]
