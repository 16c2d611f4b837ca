"""A plain HTTP client for the sandbox."""

from typing import Any

import requests

from roster_pipeline.sandbox import District, SandboxServer


class Client:
    """Sends plain requests with the district's token, without any code of the pipeline's client."""

    def __init__(self, server: SandboxServer, district: District) -> None:
        self.url = server.url
        self.sandbox = server.sandbox
        self.district = district
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {district.access_token}"

    def get(self, path: str) -> requests.Response:
        """GETs `path`, a relative uri with the version."""
        return self.session.get(self.url + path, timeout=10)

    def tokens(self, query: str = "owner_type=district") -> list[dict[str, object]]:
        """The token list."""
        answer = self.session.get(f"{self.url}/oauth/tokens?{query}", auth=("sandbox", "sandbox-secret"), timeout=10)
        answer.raise_for_status()
        listed: list[dict[str, object]] = answer.json()["data"]
        return listed

    def walk(self, path: str) -> list[dict[str, Any]]:
        """All objects of a list, by following `next`."""
        found: list[dict[str, Any]] = []
        uri: str | None = path
        while uri is not None:
            answer = self.get(uri)
            answer.raise_for_status()
            found += [item["data"] for item in answer.json()["data"]]
            uri = next((link["uri"] for link in answer.json()["links"] if link["rel"] == "next"), None)
        return found

    def control(self, verb: str, **arguments: object) -> requests.Response:
        """POSTs to the control API."""
        return self.session.post(f"{self.url}/_sandbox/{verb}", json=arguments, timeout=10)
