"""`tidegate help TOPIC`: what holds for all commands."""

from typing import Final

import click

from tidegate.cli.output import EXIT_CODES, Output, with_output
from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean

TOPICS: Final = {
    "exit-codes": "\n".join(f"{code:>4}  {text}" for code, text in EXIT_CODES.items()),
    "environment": """\
TIDEGATE_SERVER                the control plane's URL
TIDEGATE_PROFILE               a named server of ~/.config/tidegate/config.toml
TIDEGATE_DATA_DIR              the data directory of a server on this machine
TIDEGATE_CA                    PEM file of the server's own authority
TIDEGATE_TOKEN                 an API token
TIDEGATE_TOKEN_FILE            a file that holds one
TIDEGATE_ROOT                  the root that a publisher's machine believes
TIDEGATE_KEY_PASSPHRASE_FILE   a file that holds the passphrase of a key
SOURCE_DATE_EPOCH              the time that built images and releases bear""",
    "json": """\
Every command that reads or makes something takes --json: one JSON value on stdout.
Every value names its schema: "schema": "tidegate.release/1". Fields are added, never renamed.
Lists are {"schema": ..., "items": [...]}; an empty one is no error.
With --json an error is one RFC 9457 object on stderr, with "code" and "exit".""",
    "tls": """\
tidegate serve --tls           HTTPS by an authority of the server's own, made at the first start;
                               devices and browsers trust it with DATA/tls/ca.pem
tidegate serve --tls-cert CERT --tls-key KEY    a certificate of yours
Without either it listens on this machine only.
A command on another machine: TIDEGATE_CA=ca.pem, or ca = "ca.pem" in its profile.
Transport is never what devices trust: they act on signatures alone.""",
    "queries": """\
model = gateway and revision >= 3 and not (tag:lab or group:frozen)
seen < 24h          state != confirmed      variant in (gw1-r3, gw1-r4)
site ~ lyon-*       has(modem)              attr.modem.firmware >= 2.10

Names: id product model revision variant channel site region connectivity serial agent
release counter security_floor state reason rollout seen, and whatever a device says of itself
(attr.NAME). An attribute that a device does not have equals nothing. Numbers compare as
numbers, other text in the order of version strings. Quote the whole query for the shell.""",
    "keys": """\
root        offline, 2 of 3    says who may sign everything else
targets     offline, 2 of 3    says which keys speak for which product
product     offline            signs releases; two keys for production
incident    offline, 2 of 4    may authorise a way back beside a release's own fallback_to
director    on the server      chooses for each device among what is signed
snapshot, timestamp            on the server; freshness
audit       on the server      signs the log's checkpoints
A key file is sealed with Argon2id and AES-256-GCM; nobody can recover it.""",
}


@click.command("help")
@click.argument("topic", required=False)
@with_output
def command(topic: str | None, out: Output) -> None:
    """Read about a topic.

    \b
    tidegate help
    tidegate help exit-codes
    """
    if topic is None:
        out.table("topics/1", [{"topic": name} for name in TOPICS], ["topic"])
        return
    if topic not in TOPICS:
        raise RequestError(
            "request.not_found", f'there is no topic "{topic}"{did_you_mean(topic, TOPICS)}'
        )
    out.data("topic/1", {"topic": topic, "text": TOPICS[topic]}, TOPICS[topic])
