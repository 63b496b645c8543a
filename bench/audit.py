#!/usr/bin/env python3
"""How long, and in how much memory, `airlock audit` judges a dump of a large cluster.

Makes a dump of PODS pods (JSON and YAML, as `oc get pods -A -o json|yaml` prints them) and RULES rules in a folder of its own, runs the
program over it without --check-mirror, and prints Markdown for docs/measurements.md. The promise is 10,000 pods and 2,000 rules
within 2 s and 128 MiB in a release build.

    cargo build --release && python3 bench/audit.py
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def pod(n):
    """A pod with what real ones have around the few fields that matter: about 21 KB of JSON, indented as `oc` does it."""
    app = n % 1500
    repository = f"registry{app % 40}.example.com/team{app % 200}/app{app}"
    image = f"{repository}@{digest(str(app))}" if app % 3 else f"{repository}:v{app % 7}"
    container = lambda name: {
        "name": name,
        "image": image if name == "main" else f"quay.io/sidecars/{name}:v{app % 5}",
        "command": ["/usr/bin/serve", "--listen", ":8080", "--config", "/etc/app/config.yaml"],
        "env": [{"name": f"SETTING_{i}", "value": "x" * 40} for i in range(15)],
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"mountPath": f"/var/data/{i}", "name": f"volume-{i}", "readOnly": True} for i in range(4)],
        "livenessProbe": {"failureThreshold": 3, "httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTP"}},
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
    }
    names = ["main", "proxy", "metrics"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "annotations": {"k8s.ovn.org/pod-networks": json.dumps({"default": {"ip_addresses": ["10.128.0.1/23"]}})},
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "labels": {"app": f"app{app}", "pod-template-hash": "5d4f9c7b8"},
            "name": f"app{app}-5d4f9c7b8-{n:05}",
            "namespace": f"team{app % 200}",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app{app}-5d4f9c7b8", "controller": True}],
        },
        "spec": {
            "containers": [container(name) for name in names],
            "initContainers": [container("init")],
            "nodeName": f"worker-{n % 250}",
            "imagePullSecrets": [{"name": "default-dockercfg-abcde"}],
            "volumes": [{"name": f"volume-{i}", "configMap": {"defaultMode": 420, "name": f"config-{i}"}} for i in range(4)],
        },
        "status": {
            "conditions": [{"type": t, "status": "True", "lastTransitionTime": "2026-11-01T00:00:00Z"} for t in ("Ready", "Initialized")],
            "containerStatuses": [
                {"name": name, "image": image, "imageID": f"{repository}@{digest(str(app))}", "ready": True, "restartCount": 0,
                 "state": {"running": {"startedAt": "2026-11-01T00:00:00Z"}}}
                for name in names
            ],
            "phase": "Running",
        },
    }


def yaml(value, indent=0, out=None):
    """YAML as kubectl prints it."""
    pad = "  " * indent
    if isinstance(value, dict):
        for key, inner in value.items():
            key = json.dumps(key) if key.startswith(("f:", ".")) else key
            if isinstance(inner, (dict, list)) and inner:
                out.write(f"{pad}{key}:\n")
                yaml(inner, indent + (0 if isinstance(inner, list) else 1), out)
            else:
                out.write(f"{pad}{key}: {json.dumps(inner)}\n")
    else:
        for item in value:
            if isinstance(item, dict):
                first = True
                for key, inner in item.items():
                    lead = f"{pad}- " if first else f"{pad}  "
                    first = False
                    key = json.dumps(key) if key.startswith("f:") else key
                    if isinstance(inner, (dict, list)) and inner:
                        out.write(f"{lead}{key}:\n")
                        yaml(inner, indent + (1 if isinstance(inner, list) else 2), out)
                    else:
                        out.write(f"{lead}{key}: {json.dumps(inner)}\n")
            else:
                out.write(f"{pad}- {json.dumps(item)}\n")


def dumps(folder, pods):
    with open(os.path.join(folder, "pods.json"), "w") as out:
        out.write('{\n    "apiVersion": "v1",\n    "items": [\n')
        for n in range(pods):
            out.write((",\n" if n else "") + json.dumps(pod(n), indent=4))
        out.write('\n    ],\n    "kind": "List",\n    "metadata": {"resourceVersion": ""}\n}\n')
    with open(os.path.join(folder, "pods.yaml"), "w") as out:
        out.write("apiVersion: v1\nitems:\n")
        for n in range(pods):
            yaml([pod(n)], 0, out)
        out.write("kind: List\nmetadata:\n  resourceVersion: \"\"\n")


def rules(folder, count):
    with open(os.path.join(folder, "rules.yaml"), "w") as out:
        for kind, field, n in (("ImageDigestMirrorSet", "imageDigestMirrors", count // 2), ("ImageTagMirrorSet", "imageTagMirrors", count - count // 2)):
            out.write(f"apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: bench\nspec:\n  {field}:\n")
            for i in range(n):
                source = f"registry{i % 40}.example.com/team{i % 200}/app{i}"
                out.write(f"  - source: {source}\n    mirrors:\n    - mirror.corp.example:5000/apps/team{i % 200}/app{i}\n")
            out.write("---\n")


def run(program, folder, dump, output):
    begin = time.monotonic()
    with open(os.path.join(folder, "out"), "wb") as out:
        process = subprocess.Popen(
            [program, "audit", os.path.join(folder, dump), "--rules", os.path.join(folder, "rules.yaml"), "-o", output], stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 8):
        sys.exit(f"airlock audit ended with {code}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default="target/release/airlock")
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--rules", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dumps(folder, arguments.pods)
        rules(folder, arguments.rules)
        print(f"| {arguments.pods} pods, {arguments.rules} rules | size | best of {arguments.runs} | worst | processor time | memory |")
        print("|---|---|---|---|---|---|")
        for dump in ("pods.json", "pods.yaml"):
            size = os.path.getsize(os.path.join(folder, dump)) / 2**20
            for output in ("table", "json"):
                results = [run(os.path.abspath(arguments.program), folder, dump, output) for _ in range(arguments.runs)]
                walls, processor, memory = zip(*results)
                print(f"| {dump}, `-o {output}` | {size:.0f} MiB | {min(walls):.2f} s | {max(walls):.2f} s | {min(processor):.2f} s | {max(memory):.0f} MiB |")


if __name__ == "__main__":
    main()
