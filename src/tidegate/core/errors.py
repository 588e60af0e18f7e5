"""Every error, by who must act.

```
TidegateError
  PublisherError   metadata or artifact is wrong; never retried as it is
  TransferError    the way between; retried with back-off
  DeviceError      this device; reported, wants an operator
  RequestError     the caller of the API or command line
  ConfigError      who configured it; raised at start only, names file and key
  BusyError        somebody else holds it, or the store cannot take more now
```

`code` is dotted and stable for ever. It is at once the reason in events, the label in metrics, the `type` of an RFC 9457 problem and the
heading in `docs/reference/errors.md`. Where a code is also a reason (`sig.*`, `compat.*`, `download.*`, `install.*`, `activate.*`), the words are those of
`core.reasons`. One class carries many codes: the class says who must act, the code says what happened.
"""

from typing import Final

from tidegate.core.reasons import REASONS

#: Codes that are not reasons of updates, with what to do about them. `{}` is never used: detail goes into the message.
HINTS: Final[dict[str, str]] = {
    "config.unknown_key": "correct the keys named: every mistake of the file is listed at once",
    "config.invalid": "correct the value named",
    "config.missing": "add what is named; `tidegate help environment` and docs/reference tell where values may stand",
    "config.unreadable": "check its name and folder, and that this user may read it",
    "data.locked": "stop the other server, give this one its own --data directory, or start all of them with --shared",
    "data.read_only": "make the data directory, or the database of [database] url, writable for this user; a standby has to be promoted first",
    "data.unreachable": "nothing to do if the database server is only restarting: ask again; else see [database] url and whether it runs",
    "data.outcome_unknown": "look whether it was done before you ask for it again; a device just sends it again",
    "data.denied": "check the user, password and name of the database in [database] url, and that it may be used from here",
    "data.full": "free disk space; nothing that was acknowledged is lost",
    "data.newer_schema": "start the newer Tidegate that made this database, or restore a backup from before",
    "data.older_schema": "tidegate db upgrade; servers of the version before may go on meanwhile",
    "data.other_tenant": "start the server with the folder or database of the tenant that it is meant for; nothing was changed",
    "data.damaged": "keep the file as it is and restore a backup",
    "blobs.unreachable": "check the object store and the way to it; the server tries again by itself",
    "blobs.refused": "check bucket, region, credentials and their permissions; `tidegate doctor` tries each",
    "blobs.untrue": "look for a cache or proxy in front of the object store that changes answers, then at the store itself",
    "backup.exists": "give a folder or file that is not there yet; nothing is ever written over",
    "backup.none": "name the data directory of a server on SQLite with --data; PostgreSQL is backed up with its own tools (docs/guides/back-up-and-restore.md)",
    "backup.incomplete": "publish the bundle of that release again, then back up: a backup that lacks a blob is not kept",
    "backup.unreadable": "name a folder or file that `tidegate backup` of this version or an older one made",
    "backup.not_held": "tidegate restore --hold-only --data DIRECTORY: halts after the backup are not known to it",
    "backup.damaged": "use another backup; nothing was brought back from this one",
    "serve.port_taken": "choose another port with --listen, or stop the program that has it",
    "serve.no_tls": "listen on 127.0.0.1, give --tls, or name the proxies that end TLS ([http] trusted_proxies): then nobody else may connect",
    "key.missing": "name the key file that is meant; `tidegate keys new` makes a new one, and a server's online.pub.json lies in its data directory",
    "key.passphrase": "try again, or name a file with TIDEGATE_KEY_PASSPHRASE_FILE",
    "key.malformed": "the file is not a Tidegate key; restore it from its backup",
    "key.foreign": "bring it in with `tidegate keys import NAME --from FILE`",
    "key.other_server": "copy the folder `online` from the data directory of another server of this database; replaced on purpose: `tidegate db adopt-keys`",
    "key.library": "install the library named",
    "key.token": "check that the token is plugged in, PYKCS11LIB names its library, and the URI its key",
    "key.exposed": "chmod 600 the file; if somebody may have read it, `tidegate-agent rekey`",
    "key.duplicate": "every name must stand for its own key: make a new one for one of them",
    "key.trust_levels": "use separate keys for separate roles",
    "meta.no_root": "run the root ceremony: `tidegate root begin`, or `tidegate init --lab` to try things out",
    "meta.incomplete": "ask the holders named to sign, then merge again",
    "release.exists": "raise version and counter in release.toml: a published release never changes",
    "release.malformed": "build the bundle again with `tidegate release build`",
    "supply.malformed": "correct the document as the detail says, or make it again with the tool that wrote it",
    "supply.too_large": "attach a smaller document: split it, or leave out files and tests",
    "supply.unknown_format": "give a format that is read: CycloneDX or SPDX JSON, OpenVEX, CSAF 2.0, OSV, SLSA provenance in DSSE",
    "supply.attachment": "build the bundle again: attachments are part of what is signed",
    "supply.policy": "attach what is missing (`tidegate release attach`) and sign again, or publish to another channel such as pilot first",
    "tenant.suspended": "ask whoever runs this server; devices come again by themselves, and nothing is lost",
    "tenant.unavailable": "try again after Retry-After; `tidegate doctor` on the server says why",
    "tenant.unknown_host": "use the address that was given to you, or have it added: `tidegate tenant add`, or [http] external_url for the server's own",
    "quota.devices": "remove devices that are gone, or have the quota raised: `tidegate tenant edit NAME --devices N`",
    "quota.storage": "have the quota raised: `tidegate tenant edit NAME --stored SIZE`",
    "quota.events": "nothing is lost, devices send it later; have the quota raised: `tidegate tenant edit NAME --events-per-day N`",
    "quota.requests": "wait as Retry-After says, or have the quota raised: `tidegate tenant edit NAME --requests-per-s N`",
    "upload.quota": "finish or abort other uploads, or raise [uploads] quota",
    "request.invalid": "correct the request as the detail says",
    "request.too_large": "send less at once",
    "request.method": "use the method named",
    "request.not_found": "check the name",
    "request.forbidden": "ask for the permission named",
    "request.unauthenticated": "sign in, or send a valid token",
    "request.conflict": "look at the present state, then try again",
    "request.confirmation_needed": "answer on a terminal, or give the options that --help names for scripts",
    "request.approval_needed": "have somebody else consent (`tidegate user consent NUMBER`, or the page of people), then do the same again within a day",
    "request.rate_limited": "wait as Retry-After says",
    "auth.provider": "begin the sign-in again; if it stays so, whoever runs this server compares [oidc] with the provider",
    "auth.stale": "show who you are at /account/proof, or sign in again; nothing was done, so do it again then",
    "auth.second_factor": "enter the present code of your authenticator app, or a recovery code that was not used",
    "device.unknown": "enrol the device first",
    "device.revoked": "if it is to come back, approve a new key for it: `tidegate device swap`",
    "device.pending": "accept the device: `tidegate device approve`",
    "device.quarantined": "find the clone, then give the right device a new key: `tidegate-agent rekey` and `tidegate device swap`",
    "claim.invalid": "make a new claim token: `tidegate claim create`",
    "session.expired": "ask for a new session",
    "server.busy": "try again after Retry-After",
    "server.internal": "report it with the log line of this request id",
    "link.answer": "the server is of another version, or something else answers in its place: compare the versions, and look at the address",
    "link.unreachable": "check the address (--server, TIDEGATE_SERVER), the network and whether the server runs",
    "audit.mismatch": "keep this copy and the database as they are, take the server off the network, and compare with an older export",
    "audit.unreadable": "give an export of `tidegate audit export`, and checkpoints of `tidegate audit checkpoint`",
    "audit.checkpoint_forged": "give the audit key of the root that was in force then; if it is the right one, somebody else made this checkpoint",
    "audit.key": "give root.json, a server's online.pub.json, or the line that `tidegate audit checkpoint --verifier` prints",
    "agent.locked": "another agent runs with this state directory",
}


class TidegateError(Exception):
    """Something went wrong.

    Attributes:
        code: dotted, stable.
        detail: one sentence for a person; may contain untrusted text, so it is escaped where shown.
        retryable: whether the same call may succeed later without anybody acting.
    """

    retryable: bool = False

    def __init__(self, code: str, detail: str = "", *, hint: str = "") -> None:
        """Make an error of a known code.

        Args:
            code: a reason, or a key of `HINTS`.
            detail: what happened; the code's own words, if empty.
            hint: what to do about it, where the place knows better than the code.

        Raises:
            KeyError: the code is neither a reason nor in `HINTS`: a fault in Tidegate.
        """
        if code not in REASONS and code not in HINTS:
            raise KeyError(code)
        self.code = code
        self._hint = hint
        self.detail = detail or REASONS.get(code, "") or code
        super().__init__(f"{code}: {self.detail}")

    @property
    def hint(self) -> str:
        """Say what to do about it, in one clause; empty where the detail says all."""
        return self._hint or HINTS.get(self.code, "")


class PublisherError(TidegateError):
    """Metadata or artifact is wrong; whoever published it must act."""


class TransferError(TidegateError):
    """The way between device and server failed; it is tried again.

    Attributes:
        retry_after_s: not sooner than in so many seconds, since the other end asked for that; 0 = it did not.
    """

    retryable = True

    def __init__(
        self, code: str, detail: str = "", *, hint: str = "", retry_after_s: int = 0
    ) -> None:
        super().__init__(code, detail, hint=hint)
        self.retry_after_s = retry_after_s


class DeviceError(TidegateError):
    """This device failed; its operator must act."""


class RequestError(TidegateError):
    """The caller asked for what cannot be."""


class ConfigError(TidegateError):
    """The configuration is wrong; raised at start only."""


class BusyError(TidegateError):
    """Somebody else holds it, or it cannot be taken now."""

    retryable = True
