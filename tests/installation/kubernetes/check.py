"""Checks Kubernetes files against fields.json, strictly: what a server would drop in silence is told. Arguments: the files; needs PyYAML, and no network."""

import json
import sys
from pathlib import Path

import yaml

TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "number": (int, float)}


def wrong(schema: dict, value: object, at: str) -> list[str]:
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        return [] if isinstance(value, (int, str)) and not isinstance(value, bool) else [f"{at}: {value!r} is no number or text"]
    if kind and (not isinstance(value, TYPES[kind]) or (kind == "integer" and isinstance(value, bool))):
        return [f"{at}: {value!r} is no {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{at}: {value!r} is none of {schema['enum']}"]
    if isinstance(value, list):
        return [w for n, one in enumerate(value) for w in wrong(schema.get("items", {}), one, f"{at}[{n}]")]
    if not isinstance(value, dict):
        return []
    found = [f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value]
    if "additionalProperties" in schema:
        return found + [w for name, one in value.items() for w in wrong(schema["additionalProperties"], one, f"{at}.{name}")]
    if "properties" not in schema:
        return found + [f"{at}: fields.json knows nothing of it; see make_fields.py"]
    for name, one in value.items():
        if name in schema["properties"]:
            found += wrong(schema["properties"][name], one, f"{at}.{name}")
        else:
            found.append(f"{at}.{name}: there is no such field")
    return found


def main() -> None:
    fields = json.loads((Path(__file__).parent / "fields.json").read_text())
    found, documents = [], 0
    for file in sys.argv[1:]:
        for document in yaml.safe_load_all(Path(file).read_text()):
            name = f"{document.get('apiVersion')} {document.get('kind')}"
            documents += 1
            if name not in fields:
                found.append(f"{file}: unknown kind {name}")
            else:
                found += [f"{Path(file).name}: {w}" for w in wrong(fields[name], document, document["kind"])]
    print("\n".join(found) if found else f"{documents} objects are as their kinds have them")
    sys.exit(1 if found else 0)


main()
