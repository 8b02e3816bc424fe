"""The way from this machine to a server: loopback, the environment's proxies and certificates."""

import importlib.util
import os
import socket
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from eval.errors import JudgeError
from eval.storage.reading import is_folder, open_file

SOCKS = ("socks5", "socks5h")
PROXIES = ("http", "https", *SOCKS)
CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR")  # the first that is set


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine: 127.0.0.0/8, ::1, localhost."""
    name = (host or "").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        try:
            address = ip_address(socket.inet_aton(name))  # 127.1 is an address, too
        except OSError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of the environment.

    url       without its credentials
    variable  of the environment that names it
    """

    url: str
    variable: str
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"the proxy {self.url} ({self.variable})"


def find_proxy(url: str) -> Proxy | None:
    """The proxy that the environment names for a URL.

    Raises JudgeError, without the proxy's credentials, for one that cannot be used.
    """
    parts = urlsplit(url)
    if is_loopback(parts.hostname):
        return None
    proxies = getproxies()
    scheme = next((name for name in (parts.scheme, "all") if proxies.get(name)), None)
    if scheme is None or proxy_bypass(parts.netloc):
        return None
    variable = f"{scheme}_proxy"
    if not os.environ.get(variable):
        variable = next((v for v in os.environ if v.lower() == variable), variable)
    without = f"or set NO_PROXY={parts.hostname} to go without it"
    value = proxies[scheme].strip()
    try:
        found = urlsplit(value if "://" in value else f"http://{value}")
        name, port = found.hostname, found.port
    except ValueError:
        name = None
    if not name or not (name.isascii() and name.isprintable()):
        raise JudgeError(f"{variable}: not a proxy's URL. Write http://proxy:3128, {without}")
    if found.scheme not in PROXIES:
        raise JudgeError(
            f"{variable}: a proxy of the kind {found.scheme!r:.40} is not supported; use one of "
            f"{', '.join(PROXIES)}, {without}"
        )
    place = f"[{name}]" if ":" in name else name
    user, password = unquote(found.username or ""), unquote(found.password or "")
    proxy = Proxy(
        f"{found.scheme}://{place}{f':{port}' if port else ''}",
        variable,
        (user, password) if user or password else None,
    )
    if found.scheme in SOCKS and importlib.util.find_spec("socksio") is None:
        raise JudgeError(
            f"{proxy} speaks SOCKS, which needs a package: pip install socksio, {without}"
        )
    return proxy


def tls_context() -> ssl.SSLContext:
    """Certificates to trust: the environment's file or folder, or the system's.

    Raises JudgeError, naming the variable, for certificates that cannot be read.
    """
    variable = next((name for name in CERTIFICATES if os.environ.get(name)), None)
    if variable is None:
        import httpcore2  # slow to import

        return httpcore2.default_ssl_context()
    path = Path(os.environ[variable])

    def wrong(reason: str) -> JudgeError:
        return JudgeError(f"{variable}: the certificates cannot be read: {reason}")

    try:
        if is_folder(path):
            return ssl.create_default_context(capath=path)
        open_file(path, wrong).close()
        return ssl.create_default_context(cafile=path)
    except (OSError, ValueError) as error:
        raise wrong(f"{path}: {error}") from None
