"""The application for people and programs: REST API under `/api/v1`, metrics, and the web pages beside them."""

from tidegate.server.api.app import create_admin_app

__all__ = ["create_admin_app"]
