"""The description of the API: OpenAPI 3.1 of every route, the raw device routes too, complete with schemas, refusals and their codes.

What is taken and given is described by the structs that read and write it (`msgspec.json.schema`), so a bound stands in one place. The framework tells routes
and parameters. Every answer that a route can give is named, refusals as RFC 9457 problems; what a route may answer follows from how it is called:
anything may be refused for its form or for who asks, what is named in the path may be missing, and what changes something may meet a conflict.
"""

import inspect
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.response import ServerSentEvent, Stream

from tidegate import __version__
from tidegate.core import protocol
from tidegate.core.errors import HINTS
from tidegate.core.fields import FIELDS_MAX
from tidegate.core.protocol import Problem
from tidegate.core.reasons import REASONS
from tidegate.server import problems
from tidegate.server.api import fields, repeats
from tidegate.server.api.answers import kinds_of
from tidegate.server.api.desk import ANSWER, ANYBODY, BODY, PERMISSION, PREFIX, REFUSALS
from tidegate.server.api.examples import BODIES, PATHS
from tidegate.server.api.sorting import SORT, Sorting
from tidegate.server.api.tags import MATCH
from tidegate.server.auth import COOKIE

Document = dict[str, Any]
JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_REF: Final = "#/components/schemas/{name}"
#: What each refusal means, beside the codes that lead to it.
_STATUSES: Final = {
    400: "The request cannot be read, or says what cannot be.",
    401: "Nobody is signed in.",
    403: "Whoever asks may not do this.",
    404: "There is no such thing.",
    405: "The path takes another method.",
    409: "The present state does not allow it.",
    412: "It changed since the ETag of `If-Match` was read.",
    413: "The body is too large.",
    416: "The range lies outside.",
    422: "What was sent in is refused: a signature, a document or a rule.",
    429: "Too often; see `Retry-After`.",
    500: "A fault in the server.",
    502: "What is behind the server answered wrongly.",
    503: "Busy; see `Retry-After`.",
    507: "The disk is full; nothing acknowledged is lost.",
}
_ALWAYS: Final = (400, 401, 403, 405, 429, 500, 503)
_CHANGES: Final = (404, 409, 412, 413, 422, 507)
_TAG: Final = {
    "description": "What the answer is; send it in `If-None-Match` to be spared it, in `If-Match` to change only what you saw.",
    "schema": {"type": "string"},
}
_UNCHANGED: Final = {"description": "It is what `If-None-Match` names.", "headers": {"ETag": _TAG}}
_FIELDS, _IF_NONE_MATCH, _IF_MATCH, _IDEMPOTENCY_KEY = (
    "fields",
    "IfNoneMatch",
    "IfMatch",
    "IdempotencyKey",
)
_PARAMETERS: Final = {
    _FIELDS: {
        "name": fields.FIELDS,
        "in": "query",
        "required": False,
        "description": "Only these fields, separated by commas, with dots into what they hold; of a page, of each of its items.",
        "schema": {"type": "string", "maxLength": FIELDS_MAX},
    },
    _IF_NONE_MATCH: {
        "name": "If-None-Match",
        "in": "header",
        "required": False,
        "description": "ETags that are known; the answer to one of them is 304.",
        "schema": {"type": "string", "maxLength": 2000},
    },
    _IF_MATCH: {
        "name": "If-Match",
        "in": "header",
        "required": False,
        "description": "ETag of what is to be changed, as it was read; when it changed meanwhile the answer is 412.",
        "schema": {"type": "string", "maxLength": 200},
    },
    _IDEMPOTENCY_KEY: {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "The same call sent again under the same key is answered with the first answer, for 24 hours.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 100, "pattern": "^[!-~]+$"},
    },
}
_TAGS: Final = {
    "rollouts": "One release on its way to a group of devices.",
    "releases": "Signed, immutable sets of artifacts.",
    "uploads": "Large bundles on their way here, in parts.",
    "trust": "What is published above the products, and the server's public keys.",
    "supply chain": "What releases are made of, and what is known against it.",
    "devices": "Devices, their tags, and who is let in.",
    "groups": "Groups of devices, static or by query.",
    "claims": "Claim tokens, by which devices join.",
    "jobs": "Acts on many devices at once.",
    "incidents": "A halt and all that followed.",
    "notifications": "What the world is told.",
    "approvals": "What waits for a second person.",
    "people": "Accounts, and tokens for programs.",
    "tenants": "Others whom this server serves, each apart; at the server's own address alone.",
    "audit": "What operators did, and what vouches for it.",
    "fleet": "What is not about one thing.",
    "device": "What devices themselves call; raw routes outside of `/api/v1`.",
}
#: What a struct is called here, where two of the server's share a name.
_NAMES: Final = {
    "tidegate.core.calendar.Entry": "CalendarEntry",
    "tidegate.rollout.incident.model.Entry": "TimelineEntry",
    "tidegate.rollout.incident.model.Reach": "IncidentReach",
    "tidegate.rollout.incident.model.Stopped": "IncidentStopped",
    "tidegate.rollout.incident.model.WayBack": "IncidentWayBack",
    "tidegate.server.acts.Stopped": "Stopped",
    "tidegate.server.components.GroupFacts": "ComponentGroup",
    "tidegate.server.components.PartFacts": "ComponentPart",
    "tidegate.server.fallbacks.WayBack": "WayBack",
    "tidegate.server.gatekeeper.facts.PartFacts": "EvidencePart",
    "tidegate.server.groups.GroupFacts": "GroupFacts",
    "tidegate.server.reach.Reach": "Reach",
}
_INTRODUCTION: Final = (
    "Everything that the command line and the pages do. JSON in UTF-8; times are unix seconds; shares are basis points; units stand in names. "
    "A refusal is an RFC 9457 problem whose `code` is stable for ever."
)


def describe(app: Litestar) -> Document:
    """Return the whole description. It depends on the code alone: the same for every server of this version."""
    drafts = _drafts(app)
    kinds = list(dict.fromkeys([*_kinds(drafts), *_device_kinds(), Problem]))
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    known = dict(zip(kinds, refs, strict=True))
    _complete(schemas)
    paths: dict[str, Document] = {}
    for draft in drafts:
        paths.setdefault(draft.path, {})[draft.method.lower()] = draft.operation(known)
    paths |= _device_paths(known)
    used = sorted(
        {status for item in paths.values() for one in item.values() for status in _refused(one)}
    )
    return _named(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Tidegate",
                "version": __version__,
                "description": _INTRODUCTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "security": [{"token": []}, {"session": []}],
            "paths": dict(sorted(paths.items())),
            "components": {
                "securitySchemes": {
                    "token": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "An API token: `tidegate token create`.",
                    },
                    "session": {
                        "type": "apiKey",
                        "in": "cookie",
                        "name": COOKIE,
                        "description": "The pages' session. What changes something needs the header `tidegate-form` as well.",
                    },
                    "device": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A device's session token, of `POST /d/v1/session`.",
                    },
                },
                "parameters": _PARAMETERS,
                "responses": {f"Refused{status}": _refusal(status) for status in used},
                "schemas": schemas,
            },
        }
    )


def _named(document: Document) -> Document:
    """Give structs that share a name the names by which they are told apart, instead of where they stand in the code.

    Raises:
        LookupError: two share a name and have no other.
    """
    schemas = document["components"]["schemas"]
    if lacking := sorted({one for one in schemas if "." in one} - set(_NAMES)):
        raise LookupError(f"no name in _NAMES for {', '.join(lacking)}")
    named = {_NAMES.get(name, name): told for name, told in schemas.items()}
    document["components"]["schemas"] = dict(sorted(named.items()))
    _rename(document)
    return document


def _rename(told: Any) -> None:
    if isinstance(told, dict):
        base, _, name = str(told.get("$ref", "")).rpartition("/")
        if name in _NAMES:
            told["$ref"] = f"{base}/{_NAMES[name]}"
    for one in told.values() if isinstance(told, dict) else told if isinstance(told, list) else ():
        _rename(one)


class _Draft(msgspec.Struct, frozen=True):
    """One operation of the API before its schemas are known."""

    path: str
    method: str
    handler: HTTPRouteHandler
    parameters: list[Document]
    tags: list[str]

    @property
    def takes(self) -> Any:
        """Return the type of the JSON body; None where there is none, or where it is raw."""
        field = self.handler.parsed_data_field
        return None if field is None else field.annotation

    @property
    def gives(self) -> tuple[Any, ...]:
        """Return the types of the answer; none where it is empty or raw."""
        raw = (bytes, ServerSentEvent, Stream)
        return tuple(one for one in kinds_of(self.handler) if one not in raw)

    @property
    def shaped(self) -> bool:
        """Say whether the answer is JSON that `fields` and ETags apply to."""
        return self.method == "GET" and ANSWER not in self.handler.opt

    def operation(self, known: dict[Any, Document]) -> Document:
        """Return the operation as the document has it."""
        opt = self.handler.opt
        permission = str(opt.get(PERMISSION, ""))
        summary, _, rest = _words(self.handler).partition("\n")
        told = [rest.strip()] if rest.strip() else []
        if permission != ANYBODY:
            told.append(f"Needs `{permission}`.")
        found: Document = {
            "operationId": operation_id(self.method, self.path, lists=self._is_list()),
            "summary": summary,
            "tags": self.tags,
            "x-tidegate-permission": permission,
        }
        if told:
            found["description"] = "\n\n".join(told)
        if opt.get("exclude_from_auth"):
            found["security"] = []
        parameters = [*self.parameters, *self._common()]
        if parameters:
            found["parameters"] = parameters
        if body := self._body(known):
            found["requestBody"] = body
        success = {"description": "Done.", **self._answer(known)}
        if self.shaped:
            success["headers"] = {"ETag": _TAG}
        refused = set(_ALWAYS) | set(opt.get(REFUSALS, ()))
        if self.method != "GET":
            refused |= set(_CHANGES)
        if "{" in self.path:
            refused.add(404)
        found["responses"] = {
            str(self.handler.status_code): success,
            **({"304": _UNCHANGED} if self.shaped else {}),
            **{str(status): _to_refusal(status) for status in sorted(refused)},
        }
        return found

    def _common(self) -> list[Document]:
        """Return the parameters that many routes heed in the same way."""
        found = []
        if self.shaped:
            found += [_FIELDS, _IF_NONE_MATCH]
        if self.method == "POST" and repeats.heeds(self.path):
            found.append(_IDEMPOTENCY_KEY)
        if MATCH in self.handler.opt:
            found.append(_IF_MATCH)
        return [{"$ref": f"#/components/parameters/{one}"} for one in found]

    def _is_list(self) -> bool:
        return any("items" in getattr(one, "__struct_fields__", ()) for one in self.gives)

    def _body(self, known: dict[Any, Document]) -> Document:
        raw = self.handler.opt.get(BODY)
        if raw is not None:
            media = (
                {"schema": {"type": "string", "format": "binary"}}
                if raw != JSON
                else {"schema": {"type": "object"}}
            )
            return {"required": True, "content": {raw: media}}
        if self.takes is None:
            return {}
        shown: Document = {"schema": known[self.takes]}
        example = BODIES.get(operation_id(self.method, self.path), BODIES.get(self.takes))
        if example is not None:
            shown["example"] = msgspec.to_builtins(example)
        return {"required": True, "content": {JSON: shown}}

    def _answer(self, known: dict[Any, Document]) -> Document:
        raw: tuple[str, ...] = self.handler.opt.get(ANSWER, ())
        if raw:
            return {
                "content": {
                    kind: {"schema": {"type": "string"} if kind != JSON else {}} for kind in raw
                }
            }
        refs = [known[one] for one in self.gives]
        if not refs:
            return {}
        return {"content": {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}}


def operation_id(method: str, path: str, *, lists: bool = False) -> str:
    """Return the stable name of an operation: its nouns, and what is done: `rollouts_list`, `rollouts_halt`."""
    parts = path.removeprefix(PREFIX).strip("/").split("/")
    nouns = [one.partition(".")[0].replace("-", "_") for one in parts if not one.startswith("{")]
    by_name = parts[-1].startswith("{")
    word = {"PUT": "replace", "PATCH": "change", "DELETE": "remove"}.get(method, "")
    if method == "GET":
        word = "show" if by_name else "list" if lists else ""
    elif method == "POST" and len(parts) == 1:
        word = "create"
    return "_".join([*nouns, word] if word else nouns)


def _drafts(app: Litestar) -> list[_Draft]:
    told = app.openapi_schema.to_schema()["paths"]
    found = []
    for route in app.routes:
        if not route.path.startswith(f"{PREFIX}/"):
            continue
        path = route.path_format
        for handler in getattr(route, "route_handlers", ()):
            if not isinstance(handler, HTTPRouteHandler) or PERMISSION not in handler.opt:
                continue
            for method in sorted(handler.http_methods - {"OPTIONS", "HEAD"}):
                plain = told.get(path, {}).get(method.lower(), {})
                parameters = [_parameter(path, one) for one in plain.get("parameters", [])]
                _name_orders(parameters, handler)
                tags = sorted(plain.get("tags", ["fleet"]))
                found.append(_Draft(path, method, handler, parameters, tags))
    return sorted(found, key=lambda one: (one.path, one.method))


def _name_orders(parameters: list[Document], handler: HTTPRouteHandler) -> None:
    """Name the orders that a list can be told in."""
    for one in parameters:
        if one["name"] == SORT:
            orders: Sorting = handler.opt[SORT]
            one["schema"] = {"type": "string", "enum": list(orders.words), "default": orders.usual}


def _words(handler: HTTPRouteHandler) -> str:
    """Return what a handler says of itself; those that run in a thread are wrapped."""
    function = getattr(handler.fn, "func", handler.fn)
    return inspect.cleandoc(function.__doc__ or "")


def _kinds(drafts: list[_Draft]) -> list[Any]:
    return [kind for one in drafts for kind in (one.takes, *one.gives) if kind is not None]


def _parameter(path: str, told: Document) -> Document:
    """Return a parameter without what is usual, with whole bounds, and with an example of what stands in a path."""
    schema = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in told["schema"].items()
    }
    found: Document = {"name": told["name"], "in": told["in"], "required": told["required"]}
    found["schema"] = schema
    if told.get("description"):
        found["description"] = told["description"]
    if told["in"] == "path":
        example = PATHS.get((path.removeprefix(PREFIX).split("/")[1], told["name"]))
        if example is not None:
            found["example"] = example
        elif schema.get("type") == "integer":
            found["example"] = 1
    return found


def _to_refusal(status: int) -> Document:
    return {"$ref": f"#/components/responses/Refused{status}"}


def _refused(operation: Document) -> set[int]:
    return {int(one) for one, told in operation["responses"].items() if "$ref" in told}


def _refusal(status: int) -> Document:
    codes = [code for code in sorted({*HINTS, *REASONS}) if problems.status_of(code) == status]
    if status == 412:
        codes = ["request.conflict"]
    if status == 416:
        codes = ["download.range"]
    named = ", ".join(f"`{one}`" for one in codes if len(codes) <= 12)
    text = f"{_STATUSES[status]} {named}".strip()
    found: Document = {
        "description": text,
        "content": {_PROBLEM: {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if status in problems.MAY_PASS:
        found["headers"] = {
            "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}
        }
    return found


def _complete(schemas: dict[str, Any]) -> None:
    """Name the codes of a problem."""
    code = schemas["Problem"]["properties"]["code"]
    code |= {
        "enum": sorted({*HINTS, *REASONS}),
        "description": "Stable for ever; docs/reference/errors.md says what to do.",
    }


# --- what devices call ------------------------------------------------------------------------------------------------

#: Routes with JSON bodies: path → (method, summary, body, answer, whether a session is needed).
_DEVICE_ROUTES: Final[dict[str, tuple[str, str, Any, Any, bool]]] = {
    "/d/v1/enrol": (
        "post",
        "Enrol a device.",
        protocol.EnrolRequest,
        protocol.EnrolAnswer,
        False,
    ),
    "/d/v1/nonce": ("post", "Get a nonce for a session.", None, protocol.NonceAnswer, False),
    "/d/v1/session": (
        "post",
        "Open a session.",
        protocol.SessionRequest,
        protocol.SessionAnswer,
        False,
    ),
    "/d/v1/rekey": (
        "post",
        "Replace the device's key by a new one that both keys signed.",
        protocol.RekeyRequest,
        protocol.RekeyAnswer,
        False,
    ),
    "/d/v1/poll": (
        "get",
        "Ask whether there is something to do; a hint, without authority.",
        None,
        protocol.PollAnswer,
        True,
    ),
    "/d/v1/assignment": (
        "post",
        "Get the signed assignment.",
        protocol.AssignmentRequest,
        protocol.AssignmentAnswer,
        True,
    ),
    "/d/v1/permit": (
        "post",
        "Ask leave to activate.",
        protocol.PermitRequest,
        protocol.PermitAnswer,
        True,
    ),
    "/d/v1/events": (
        "post",
        "Report events; acknowledged means durable.",
        protocol.EventsRequest,
        protocol.EventsAnswer,
        True,
    ),
    "/d/v1/time": ("post", "Get the signed time.", protocol.TimeRequest, protocol.TimeAnswer, True),
}
_SHA256: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _device_kinds() -> list[Any]:
    return [kind for row in _DEVICE_ROUTES.values() for kind in row[2:4] if kind is not None]


def _device_paths(known: dict[Any, Document]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for path, (method, summary, body, answer, signed_in) in _DEVICE_ROUTES.items():
        good: Document = {"description": "Done.", "content": {JSON: {"schema": known[answer]}}}
        operation = _device_operation(path, summary, {"200": good}, signed_in=signed_in)
        if path == "/d/v1/poll":
            operation["responses"]["304"] = {
                "description": "Nothing changed since `If-None-Match`."
            }
        if body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {JSON: {"schema": known[body]}},
            }
        found[path] = {method: operation}
    repo = _device_operation(
        "/d/v1/repo/{file}",
        "Get a metadata file of the TUF repository.",
        {
            "200": {"description": "The file.", "content": {JSON: {"schema": {"type": "object"}}}},
            "404": {"description": "There is no such file; no body."},
        },
        signed_in=False,
    )
    repo["parameters"] = [_in_path("file", {"type": "string"}, "timestamp.json")]
    blob_bytes = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    blob = _device_operation(
        "/d/v1/blobs/{sha256}",
        "Get the bytes of an artifact, whole or a range.",
        {
            "200": {"description": "All bytes.", "content": blob_bytes},
            "206": {"description": "The range.", "content": blob_bytes},
            "304": {"description": "It is what `If-None-Match` names."},
            "416": _to_refusal(416),
        },
        signed_in=True,
    )
    blob["parameters"] = [_in_path("sha256", _SHA256, "0" * 64)]
    return found | {"/d/v1/repo/{file}": {"get": repo}, "/d/v1/blobs/{sha256}": {"get": blob}}


def _device_operation(path: str, summary: str, good: Document, *, signed_in: bool) -> Document:
    refused = (*_ALWAYS, 404, 409, 413, 422, 507)
    return {
        "operationId": f"device_{path.split('/')[3]}",
        "summary": summary,
        "tags": ["device"],
        "security": [{"device": []}] if signed_in else [],
        "responses": {**{str(one): _to_refusal(one) for one in refused}, **good},
    }


def _in_path(name: str, schema: Document, example: str) -> Document:
    return {"name": name, "in": "path", "required": True, "schema": schema, "example": example}
