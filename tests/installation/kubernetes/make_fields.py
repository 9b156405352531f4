"""Makes fields.json: which fields Kubernetes, JobSet, Kubeflow Trainer and the Prometheus Operator know where deploy/kubernetes has an object.

    python3 tests/installation/kubernetes/make_fields.py JOBSET TRAINJOB PODMONITOR

The arguments are the files of the custom resources' definitions, from the projects' repositories (config/components/crd/bases, manifests/base/crds,
example/prometheus-operator-crd). A Job and a PersistentVolumeClaim are described within that of JobSet. Only what our files use is kept, so that the list
stays small: a new field of an object that is there needs no new list, a new object does.
"""

import json
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
FILES = sorted((HERE / "../../../deploy/kubernetes").resolve().glob("*.yaml"))
META = {"type": "object", "properties": {name: {"type": "string"} for name in ("name", "namespace", "generateName")} | {name: {"type": "object", "additionalProperties": {"type": "string"}} for name in ("labels", "annotations")}}


def of_file(path: str) -> tuple[str, str, dict]:
    definition = yaml.safe_load(Path(path).read_text())["spec"]
    version = [v for v in definition["versions"] if v["served"]][-1]
    return f"{definition['group']}/{version['name']}", definition["names"]["kind"], version["schema"]["openAPIV3Schema"]


def whole(spec: dict) -> dict:
    return {"type": "object", "required": ["spec"], "properties": {"spec": spec}}


def kept(schema: dict, value: object) -> dict:
    """The part of a schema that this value needs."""
    out = {key: schema[key] for key in ("type", "enum", "required", "x-kubernetes-int-or-string") if key in schema}
    if isinstance(value, dict) and "properties" in schema:
        out["properties"] = {name: kept(sub, value[name]) if name in value else {} for name, sub in sorted(schema["properties"].items())}
    elif isinstance(value, dict) and "additionalProperties" in schema:
        out["additionalProperties"] = kept(schema["additionalProperties"], next(iter(value.values()), None))
    elif isinstance(value, list):
        out["items"] = {}
        for one in value:
            merge(out["items"], kept(schema["items"], one))
    return out


def merge(into: dict, other: dict) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def main() -> None:
    schemas = {}
    for path in sys.argv[1:]:
        version, kind, schema = of_file(path)
        schemas[f"{version} {kind}"] = schema
    jobset = next(schema for name, schema in schemas.items() if name.endswith(" JobSet"))["properties"]["spec"]["properties"]
    job = jobset["replicatedJobs"]["items"]["properties"]["template"]["properties"]["spec"]
    schemas["batch/v1 Job"] = whole(job)
    schemas["v1 PersistentVolumeClaim"] = whole(jobset["volumeClaimPolicies"]["items"]["properties"]["templates"]["items"]["properties"]["spec"])
    fields: dict = {}
    for file in FILES:
        for document in yaml.safe_load_all(file.read_text()):
            name = f"{document['apiVersion']} {document['kind']}"
            schema = schemas[name]
            schema["properties"] |= {"metadata": META, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            merge(fields.setdefault(name, {}), kept(schema, document))
    (HERE / "fields.json").write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")


main()
