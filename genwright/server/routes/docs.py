"""Docs: the API's own document (/openapi.json), and a page made of it (/docs) with nothing from elsewhere.

The page is plain HTML: no script, one style named by its hash, so the strictest content security policy holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from ..openapi import document_of, operations

PUBLIC = True
router = APIRouter(include_in_schema=False)
_ZH = {
    "API": "接口文档", "Parameters": "参数", "Body": "请求体", "Answer": "响应", "Example": "示例", "name": "名称",
    "type": "类型", "what it is": "说明", "required": "必填", "Shapes": "数据结构", "needs a key": "需要密钥",
    "open to all": "无需密钥", "default": "默认", "machine-readable": "机器可读版本", "events": "事件流",
    "Contents": "目录", "any": "任意",
}  # fmt: skip


@router.get("/openapi.json")
async def document(request: Request) -> Response:
    return JSONResponse(document_of(request.app))


@router.get("/docs")
async def docs(request: Request, lang: str = "") -> Response:
    chosen = lang or request.headers.get("accept-language", "")
    style = (Path(__file__).parents[1] / "docs.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    head = {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "Referrer-Policy": "no-referrer", "Vary": "Accept-Language",
    }  # fmt: skip
    page = "".join(_Page(document_of(request.app), chinese=chosen.lower().startswith("zh")).html(style))
    return Response(page, media_type="text/html; charset=utf-8", headers=head)


class _Page:
    """The document as a page: a list of contents, the operations by module, and the shapes that they name."""

    def __init__(self, found: dict[str, Any], *, chinese: bool):
        self.found, self.chinese = found, chinese

    def say(self, label: str) -> str:
        return _ZH[label] if self.chinese else label

    def html(self, style: str) -> Iterator[str]:
        title, shapes = escape(self.found["info"]["title"]), self.found["components"]["schemas"]
        other = '<a href="?lang=en" lang="en">English</a>' if self.chinese else '<a href="?lang=zh" lang="zh">中文</a>'
        yield f"""<!doctype html><html lang="{"zh" if self.chinese else "en"}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} · {self.say("API")}</title>
<style>{style}</style></head><body><header><h1>{title} <small>{escape(self.found["info"]["version"])}</small></h1>
<p>{other} · <a href="/openapi.json">{self.say("machine-readable")}</a></p></header>
<nav aria-label="{self.say("Contents")}">"""
        for tag in self.found["tags"]:
            yield f'<a href="#{tag["name"]}">{tag["name"].replace("_", " ")}</a> '
        yield f'<a href="#shapes">{self.say("Shapes")}</a></nav><main>'
        for tag in self.found["tags"]:
            yield f'<section id="{tag["name"]}"><h2>{tag["name"].replace("_", " ")}</h2>'
            yield f"<p>{escape(tag['description'])}</p>"
            for path, method, operation in operations(self.found):
                if tag["name"] in operation["tags"]:
                    yield from self.operation(path, method, operation)
            yield "</section>"
        yield f'<section id="shapes"><h2>{self.say("Shapes")}</h2>'
        for name, shape in sorted(shapes.items()):
            yield f'<details id="shape-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
            yield f"<p>{escape(shape.get('description', ''))}</p>{self.fields(shape)}</details>"
        yield "</section></main></body></html>"

    def operation(self, path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
        lock = self.say("needs a key" if operation["security"] else "open to all")
        yield f"""<details><summary><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code>
<span>{escape(operation.get("summary", ""))}</span></summary>
<p>{escape(operation.get("description", ""))}</p><p class="lock">{lock}</p>"""
        if given := operation.get("parameters"):
            yield f"<h3>{self.say('Parameters')}</h3>"
            yield self.table((p["name"], p["schema"], p.get("description", ""), p.get("required")) for p in given)
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            yield f"<h3>{self.say('Body')} <code>{escape(kind)}</code></h3>{self.fields(self.shape(body['schema']))}"
        yield f"<h3>{self.say('Answer')}</h3><p>"
        for status, answer in operation["responses"].items():
            kinds = ", ".join(answer.get("content", {})).replace("text/event-stream", self.say("events"))
            yield f"<code>{status}</code> {escape(answer['description'])} <small>{escape(kinds)}</small><br>"
        yield f"</p><h3>{self.say('Example')}</h3><pre>{escape(self.example(path, method, operation))}</pre></details>"

    def table(self, rows: Any) -> str:
        head = "".join(f"<th>{self.say(name)}</th>" for name in ("name", "type", "what it is"))
        lines = []
        for name, schema, text, required in rows:
            star = f' <b title="{self.say("required")}">*</b>' if required else ""
            text = escape(text or schema.get("description", ""))
            if schema.get("default") is not None:
                text += f" <small>{self.say('default')} <code>{escape(json.dumps(schema['default']))}</code></small>"
            lines.append(
                f"<tr><td><code>{escape(name)}</code>{star}</td><td>{self.kind(schema)}</td><td>{text}</td></tr>"
            )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

    def fields(self, shape: dict[str, Any]) -> str:
        needed = shape.get("required", ())
        if not shape.get("properties"):
            return f"<p>{self.kind(shape)}</p>"
        return self.table((name, field, "", name in needed) for name, field in shape["properties"].items())

    def shape(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema, or the one that it refers to."""
        name = schema.get("$ref", "").rpartition("/")[2]
        found: dict[str, Any] = self.found["components"]["schemas"][name] if name else schema
        return found

    def kind(self, schema: dict[str, Any]) -> str:
        """A schema in a few words, with links to the shapes that it names."""
        if "$ref" in schema:
            name = escape(schema["$ref"].rpartition("/")[2])
            return f'<a href="#shape-{name}">{name.rpartition(".")[2]}</a>'
        for either in ("anyOf", "oneOf", "allOf"):
            if either in schema:
                return " | ".join(dict.fromkeys(self.kind(one) for one in schema[either]))
        if "enum" in schema or "const" in schema:
            return " | ".join(
                f"<code>{escape(json.dumps(v))}</code>" for v in schema.get("enum", [schema.get("const")])
            )
        if schema.get("type") == "array":
            return f"{self.kind(schema.get('items', {}))} []"
        kinds = schema.get("type", self.say("any"))
        limits = [words.format(schema[key]) for key, words in _LIMITS.items() if key in schema]
        return escape(" ".join([kinds if isinstance(kinds, str) else " | ".join(kinds), *limits]))

    def example(self, path: str, method: str, operation: dict[str, Any]) -> str:
        lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}http://127.0.0.1:8484{path}"]
        if operation["security"]:
            lines.append('-H "Authorization: Bearer $GENWRIGHT_API_KEY"')
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            needed = self.value(body["schema"]) or {}
            if kind == "application/json":
                lines += [f"-H 'Content-Type: {kind}'", f"-d '{json.dumps(needed, ensure_ascii=False)}'"]
            else:
                lines += [f"-F {name}={'@rows.jsonl' if name == 'file' else value}" for name, value in needed.items()]
        return " \\\n  ".join(lines)

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Something that a schema allows, as short as can be."""
        schema = self.shape(schema) if depth < 6 else {}
        for either in ("anyOf", "oneOf", "allOf"):
            if either in schema:
                return self.value(schema[either][0], depth + 1)
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        if fields := schema.get("properties"):
            shown = [name for name in fields if name in schema.get("required", ()) or name == "content"]
            return {name: self.value(fields[name], depth + 1) for name in shown}
        empty = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "object": {}}
        if schema.get("type") == "array":
            return [self.value(schema.get("items", {}), depth + 1)]
        return empty.get(schema.get("type", ""))


_LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
           "maxLength": "≤ {} characters", "minItems": "≥ {} items", "maxItems": "≤ {} items"}  # fmt: skip
