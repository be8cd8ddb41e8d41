"""What a workflow needs of Kubernetes: its API on loopback, and jobs that run at once, as processes of this machine.

Each has a folder of its own that is empty when it begins, and nothing of this process's environment but where programs
are. Requests that a cluster would refuse are refused.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import yaml

NAMESPACED = re.compile(r"/(?:api|apis/batch)/v1/namespaces/default/(secrets|jobs|pods)(?:/([^/]+))?(?:/(\w+))?")


class Refused(Exception):
    """What the API answers in place of what was asked for: a status and why."""


class Pod:
    """The one container of a job: a process in ``folder``."""

    def __init__(self, job: dict[str, Any], folder: Path, environment: dict[str, str]):
        self.job, self.folder = job, folder
        (container,) = job["spec"]["template"]["spec"]["containers"]
        self.container = container
        for name in ("workdir", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        environment |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*container["command"], *container["args"]],
                cwd=folder / "workdir",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def script(self) -> str:
        return self.container["args"][-1]

    @property
    def limits(self) -> dict[str, str]:
        return self.container["resources"]["limits"]

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Cluster:
    """A cluster whose API listens at ``address``; ``pods`` has all that there ever were, by the names of their jobs."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self.secrets: dict[str, dict[str, str]] = {}
        self.pods: dict[str, Pod] = {}
        self.jobs: set[str] = set()
        self.address = ""

    @property
    def configuration(self) -> Path:
        """What a client is told of the cluster: the file that KUBECONFIG names."""
        file = self.folder / "kubeconfig"
        cluster, user = {"server": self.address}, {"token": "none"}
        context = {"cluster": "fake", "user": "fake"}
        parts = {"clusters": ("cluster", cluster), "users": ("user", user), "contexts": ("context", context)}
        named = {name: [{"name": "fake", key: value}] for name, (key, value) in parts.items()}
        file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "current-context": "fake"} | named))
        return file

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = urlparse(path)
        kind, name, part = NAMESPACED.fullmatch(asked.path).groups()
        return getattr(self, f"{method}_{part or kind}".lower())(name, body, parse_qs(asked.query))

    def post_secrets(self, name, body, query):
        self.secrets[body["metadata"]["name"]] = {
            key: base64.b64decode(value).decode() for key, value in body.get("data", {}).items()
        }
        return body

    def delete_secrets(self, name, body, query):
        del self.secrets[name]
        return {}

    def post_jobs(self, name, body, query):
        (container,) = body["spec"]["template"]["spec"]["containers"]
        limits, requests = (container["resources"].get(part, {}) for part in ("limits", "requests"))
        for resource in requests:
            if "/" in resource and limits.get(resource) != requests[resource]:
                raise Refused(422, f"{resource}: Limit must be set for non overcommitable resources")
        known = {}
        for variable in container.get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            known[variable["name"]] = self.secrets[reference["name"]][reference["key"]]
        name = body["metadata"]["name"]
        self.pods[name] = Pod(body, self.folder / f"pod-{len(self.pods) + 1}", self.environment | known)
        self.jobs.add(name)
        return body

    def get_status(self, name, body, query):
        if name not in self.jobs:
            raise Refused(404, f"jobs {name} not found")
        status = self.pods[name].process.poll()
        ended = {} if status is None else {"succeeded" if status == 0 else "failed": 1}
        return {"metadata": {"name": name}, "status": ended}

    def get_pods(self, name, body, query):
        job = query["labelSelector"][0].removeprefix("job-name=")
        status = self.pods[job].process.poll()
        state = {"running": {}} if status is None else {"terminated": {"exitCode": status}}
        container = {"name": "snakemake", "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
        pod = {"metadata": {"name": job}, "status": {"containerStatuses": [container]}}
        return {"items": [pod] if job in self.jobs else []}

    def get_log(self, name, body, query):
        if "previous" in query:
            # None is started anew.
            raise Refused(400, f"previous terminated container snakemake in pod {name} not found")
        return self.pods[name].log.read_text()

    def delete_pods(self, name, body, query):
        self.pods[name].kill()
        return {}

    def delete_jobs(self, name, body, query):
        self.pods[name].kill()
        self.jobs.discard(name)
        return {}


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer, status = cluster.answer(self.command, self.path, json.loads(body or b"{}")), 200
            except Refused as refusal:
                status, message = refusal.args
                answer = {"kind": "Status", "code": status, "message": message}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = do

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    return Handler


@contextlib.contextmanager
def running(folder: Path, environment: dict[str, str]) -> Iterator[Cluster]:
    """A cluster whose jobs run in folders below ``folder`` with ``environment``; they end with it."""
    folder.mkdir()
    cluster = Cluster(folder, environment)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    cluster.address = "http://{}:{}".format(*server.server_address)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for pod in cluster.pods.values():
            pod.kill()
