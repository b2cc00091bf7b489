"""TypeScript types of the service's answers and requests, from its OpenAPI description: `clients/mmrec.d.ts`.

python scripts/typescript_types.py          # writes the file
python scripts/typescript_types.py --check  # exits with 1 where it is not current
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmrec.service import ServiceConfig, create_app

OUT = Path(__file__).resolve().parents[1] / "clients" / "mmrec.d.ts"
NAMES = {"integer": "number", "number": "number", "string": "string", "boolean": "boolean", "null": "null"}
Schema = Mapping[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where the file is not current")
    made = typescript(create_app(ServiceConfig(store="store")).openapi())
    if parser.parse_args().check:
        return int(OUT.read_text(encoding="utf-8") != made)
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(made, encoding="utf-8")
    return 0


def typescript(api: Schema) -> str:
    """All types: one of each schema, and one that names what each operation takes and answers."""
    schemas = api["components"]["schemas"]
    blocks = [f"// The types of mmrec's HTTP API, made by scripts/{Path(__file__).name} from its OpenAPI description."]
    blocks += [_named(name, schema) for name, schema in sorted(schemas.items())]
    blocks.append("\n".join(["export interface Operations {", *_operations(api), "}"]))
    return "\n\n".join(blocks) + "\n"


def _named(name: str, schema: Schema) -> str:
    head = f"/** {' '.join(schema['description'].split())} */\n" if schema.get("description") else ""
    return f"{head}export type {_identifier(name)} = {_type(schema)};"


def _operations(api: Schema) -> Iterator[str]:
    for path, methods in sorted(api["paths"].items()):
        for method, operation in sorted(methods.items()):
            query = [p for p in operation.get("parameters", ()) if p["in"] == "query"]
            parts = {
                "query": _object({p["name"]: p["schema"] for p in query}, [p["name"] for p in query if p["required"]]),
                "body": _content(operation.get("requestBody", {})),
                "answer": next(_content(a) for status, a in operation["responses"].items() if status.startswith("2")),
            }
            yield f"  /** {operation['description'].splitlines()[0]} */"
            yield f'  "{method.upper()} {path}": {{ ' + "; ".join(f"{n}: {t}" for n, t in parts.items()) + " };"


def _content(part: Schema) -> str:
    content = part.get("content", {})
    if "application/json" in content:
        return _type(content["application/json"]["schema"])
    return "FormData" if "multipart/form-data" in content else "Blob" if content else "undefined"


def _type(schema: Schema) -> str:
    if "$ref" in schema:
        return _identifier(schema["$ref"].rsplit("/", 1)[1])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))
    if "prefixItems" in schema:
        return f"[{', '.join(_type(one) for one in schema['prefixItems'])}]"
    if schema.get("type") == "array":
        return f"Array<{_type(schema.get('items', {}))}>"
    if schema.get("type") == "object":
        if "properties" in schema:
            return _object(schema["properties"], schema.get("required", ()))
        values = schema.get("additionalProperties", True)
        return f"Record<string, {_type(values) if isinstance(values, Mapping) else 'unknown'}>"
    return NAMES.get(schema.get("type", ""), "unknown")


def _object(properties: Mapping[str, Schema], required: Any) -> str:
    fields = [f"{name}{'' if name in required else '?'}: {_type(schema)}" for name, schema in properties.items()]
    return "{ " + "; ".join(fields) + " }" if fields else "{}"


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name).rstrip("_")


if __name__ == "__main__":
    sys.exit(main())
