"""Channels from the settings, with their secrets."""

import ipaddress
from pathlib import Path

from tidegate.core.errors import ConfigError
from tidegate.core.nearest import did_you_mean
from tidegate.server.config import Mail, Settings, Webhook
from tidegate.server.messages import EVENTS, Channel
from tidegate.server.notify.mail import Mailbox
from tidegate.server.notify.webhook import Hook, check_url, secrets_of


def channels_of(settings: Settings) -> tuple[Channel, ...]:
    """Return the channels of the settings. Called at the start as well, so that a mistake is found there.

    Raises:
        ConfigError: `config.invalid`, `config.unreadable` (a file of a secret), `config.missing` (no secret).
    """
    found: list[Channel] = [_hook(one) for one in settings.webhooks]
    found += [_mailbox(one, settings.external_url.rstrip("/")) for one in settings.mails]
    names: set[str] = set()
    for one in found:
        if one.name in names:
            raise ConfigError("config.invalid", f"two channels are called {one.name}")
        names.add(one.name)
        for event in one.events:
            if event not in EVENTS:
                near = did_you_mean(event, EVENTS)
                raise ConfigError("config.invalid", f"channel {one.name}, events: {event}{near}")
    return tuple(found)


def _hook(one: Webhook) -> Hook:
    where = f"[[webhook]] {one.name}"
    check_url(one.url, f"{where}, url")
    if not one.secret_file:
        raise ConfigError("config.missing", f"{where}: secret_file")
    secrets = secrets_of(_read(one.secret_file, f"{where}, secret_file"), f"{where}, secret_file")
    return Hook(name=one.name, url=one.url, secrets=secrets, events=one.events)


def _mailbox(one: Mail, base: str) -> Mailbox:
    where = f"[[mail]] {one.name}"
    for address in (one.sender, *one.to):
        if not address.isprintable() or address.count("@") != 1 or " " in address:
            raise ConfigError("config.invalid", f"{where}: {address[:80]!r} is no mail address")
    password = ""
    if one.user:
        if not one.password_file:
            raise ConfigError("config.missing", f"{where}: password_file")
        if one.security == "none" and not _is_here(one.host):
            raise ConfigError(
                "config.invalid", f"{where}: a password goes over an encrypted line only"
            )
        password = (
            _read(one.password_file, f"{where}, password_file").decode(errors="replace").strip()
        )
    port = one.port or {"starttls": 587, "tls": 465, "none": 25}[one.security]
    return Mailbox(
        name=one.name,
        host=one.host,
        port=port,
        security=one.security,
        sender=one.sender,
        to=one.to,
        user=one.user,
        password=password,
        events=one.events,
        ca_file=one.ca_file,
        base=base,
    )


def _read(path: str, key: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError("config.unreadable", f"{key}: {error.strerror}") from error


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
