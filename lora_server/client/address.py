"""Where the API is: one URL, checked, and the path that every request starts with."""

from dataclasses import dataclass
from urllib.parse import quote

from yarl import URL

from lora_server.client.errors import Misused

BASE_PATH = "/api/v1"


@dataclass(frozen=True, slots=True)
class Address:
    """An API by the URL that its paths follow."""

    api: URL

    @classmethod
    def parsed(cls, text: str) -> "Address":
        """Read `http://host:8080`; a path is taken as the API's own, else BASE_PATH follows.

        Raises:
            Misused: it is no http or https URL, or carries more than a path.

        """
        try:
            url = URL(text.strip())
            port_is_good = url.port != 0
        except ValueError as error:
            raise Misused(f"{text!r} is no URL: {error}") from error
        if url.scheme not in ("http", "https") or not url.host or not port_is_good:
            raise Misused(f"{text!r} is no URL like http://127.0.0.1:8080")
        if url.user or url.password or url.query_string or url.fragment:
            raise Misused("the URL may hold a host, a port and a path, and nothing else")
        path = url.raw_path.rstrip("/") or BASE_PATH
        return cls(url.with_path(path, encoded=True))

    def of(self, *parts: str) -> URL:
        """Return the URL of a path below the API's; what a part holds is escaped, `/` too."""
        return self.api.joinpath(*(quote(part, safe="") for part in parts), encoded=True)

    def __str__(self) -> str:
        """Return what messages call it."""
        return str(self.api.origin())
