"""The page on the HTTP API, made from its OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from geartrain.web.api import describe
from geartrain.web.api.content import BYTES

_HEAD = """\
# The HTTP API

`geartrain serve --http 127.0.0.1:8080` serves it below `/api/v1`; `/api/v1/openapi.json` is its OpenAPI document, from
which this page is made, and from which clients can be. With tokens in the configuration each request sends one, as
`Authorization: Bearer TOKEN`; what reads needs the role `read`, a submission `submit`, and what changes something
`operate`.

```text
$ curl -s localhost:8080/api/v1/jobs -H 'Content-Type: application/json' \\
    -d '{"function": "resize", "workload": "cat.png", "background": true}'
{"handle":"H:here:1","location":"/api/v1/jobs/H:here:1","webhook":null}
```
"""


def page() -> str:
    """The page as Markdown."""
    document = describe().openapi()
    schemas = document["components"]["schemas"]
    description = (
        document["info"]["description"].split("\n\n", 1)[1].replace("(RFC 9457", "([RFC 9457](../problems.md)")
    )
    lines = [_HEAD, *description.rstrip().splitlines()]
    for tag in document["tags"]:
        operations = [
            (method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
        if not operations:
            continue
        lines += ["", f"## {tag['name'].capitalize()}", "", f"{tag['description']}."]
        for method, path, operation in operations:
            lines += ["", f"### {method.upper()} {path}", "", f"{operation['summary']}: `{operation['operationId']}`."]
            lines += ["", *operation["description"].splitlines()]
            lines += _parameters(operation.get("parameters", []))
            lines += _body(operation.get("requestBody", {}), schemas)
            lines += _answers(operation["responses"], schemas)
    return "\n".join(lines) + "\n"


def _parameters(parameters: list[dict[str, Any]]) -> list[str]:
    rows = [
        f"| `{each['name']}` | {each['in']} | {_form(each['schema']).removesuffix(' or null')} | {_told(each)} |"
        for each in parameters
        if each["in"] != "path"
    ]
    return ["", "| parameter | in | form | meaning |", "| --- | --- | --- | --- |", *rows] if rows else []


def _body(body: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for media, told in body.get("content", {}).items():
        fields = list(_fields(told["schema"], schemas))
        lines += ["", f"The body (`{media}`){':' if fields else ': any bytes.' if media == BYTES else '.'}"]
        if fields:
            lines += ["", "| member | form | meaning |", "| --- | --- | --- |", *fields]
    return lines


def _answers(responses: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for status, response in responses.items():
        if not status.startswith("2"):
            continue
        for media, told in response.get("content", {}).items():
            fields = list(_fields(told["schema"], schemas))
            lines += ["", f"{status} (`{media}`){':' if fields else ': any bytes.' if media == BYTES else '.'}"]
            if fields:
                lines += ["", "| member | form | meaning |", "| --- | --- | --- |", *fields]
    refusals = [
        f"{status} ({response['description']})" for status, response in responses.items() if "4" <= status < "6"
    ]
    return [*lines, "", f"Problems: {'; '.join(refusals)}."]


def _fields(schema: dict[str, Any], schemas: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """A row for each member, those of lists and objects within below it."""
    schema = _resolved(schema, schemas)
    for name, told in schema.get("properties", {}).items():
        yield f"| `{prefix}{name}` | {_form(told, schemas)} | {_told(told)} |"
        inner = told.get("items", told)
        if "$ref" in inner:
            mark = "[]." if "items" in told else "."
            yield from _fields(inner, schemas, f"{prefix}{name}{mark}")


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = schemas[reference.rpartition("/")[2]] if reference else schema
    return found


def _form(schema: dict[str, Any], schemas: dict[str, Any] | None = None) -> str:
    if "$ref" in schema:
        return "object" if schemas is None else _form(_resolved(schema, schemas), schemas)
    if "anyOf" in schema:
        forms = [_form(each, schemas) for each in schema["anyOf"]]
        if "object" in forms and len(forms) > 1 and set(forms) <= {"object", "null"}:
            return '`{"text"}` or `{"base64"}`' if forms.count("object") > 1 else "object or null"
        return " or ".join(dict.fromkeys(forms))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_form(schema['items'], schemas)}"
    limits = [
        f"{word} {schema[key]:g}"
        for key, word in (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"))
        if key in schema and schema[key] < 2**31
    ]
    return " ".join([kind, *limits])


def _told(schema: dict[str, Any]) -> str:
    told = str(schema.get("description") or schema.get("schema", {}).get("description") or "").replace("|", "\\|")
    default = schema.get("default", schema.get("schema", {}).get("default"))
    if default not in (None, "", []):
        told += f" (default: {str(default).lower() if isinstance(default, bool) else default})"
    return " ".join(told.split())
