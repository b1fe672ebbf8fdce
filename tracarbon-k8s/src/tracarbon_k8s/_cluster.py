"""Which cluster, and how to get in: the official client's configuration, loaded when it is needed.

Importing the client costs 43 MB and 0.4 s.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracarbon_k8s._errors import ApiUnconfigured

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the authority that signed the API server's certificate."""


def connect(kubeconfig: str | None, context: str | None, service_account: Path) -> ApiClient:
    """Return a client of the cluster that one is in, or else of that which the user's file names. Blocks.

    Args:
        kubeconfig: a file of the user's; where it or `context` is given, one's own cluster is not looked for.
        context: which of the file's, unless its current one.
        service_account: the folder of the pod's credentials.

    Raises:
        ApiUnconfigured: there is no cluster, or what is said about it cannot be used.
    """
    is_own = kubeconfig is None and context is None and is_in_cluster(service_account)
    files = [] if is_own else _files(kubeconfig, context)  # what is missing is said at once: the import takes its time
    from kubernetes.client import ApiClient, Configuration

    configuration = Configuration()
    try:
        with _plugins_that_fail():
            if is_own:
                _load_service_account(configuration, service_account)
            else:
                _load_files(configuration, files, context)
        configuration.retries = False
        return ApiClient(configuration)
    except ApiUnconfigured:
        raise
    except Exception as error:  # exec plugins and broken files may raise anything
        fault = error
    raise ApiUnconfigured(f"{_source(kubeconfig)}: {_words(fault)}")


def is_in_cluster(service_account: Path = SERVICE_ACCOUNT) -> bool:
    """Return whether this is a pod that may ask the API server of its cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (service_account / "token").is_file()


def authorisation(client: ApiClient) -> dict[str, str]:
    """Return the headers that say who one is; the client reads the token's file again from time to time. Blocks.

    Raises:
        ApiUnconfigured: they cannot be had any more.
    """
    try:
        with _plugins_that_fail():
            settings: dict[str, Any] = client.configuration.auth_settings()
    except ApiUnconfigured:
        raise
    except Exception as error:
        fault = error
    else:
        values = {each["key"]: each["value"] for each in settings.values() if each["in"] == "header"}
        return {key: value.strip() for key, value in values.items() if value}
    raise ApiUnconfigured(f"the credentials cannot be renewed: {_words(fault)}")


def plugins_of(thread: int) -> list[int]:
    """Return the credential plugins that a thread waits for, which starts nothing else; the client does not tell.

    Args:
        thread: as the kernel numbers it.
    """
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()]
    except OSError:  # the thread has ended, or this kernel does not tell
        return []


def end_plugins_of(thread: int) -> None:
    """Have the credential plugins end that a thread waits for: to it, they fail."""
    for pid in plugins_of(thread):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@contextmanager
def _plugins_that_fail() -> Iterator[None]:
    """Raise where a credential plugin fails: the client only logs it, with what the plugin said, and goes on without.

    Raises:
        ApiUnconfigured: one has failed.
    """
    said: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        said.append(record.getMessage())
        return False

    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)  # without any, the client's first word would set up logging for the whole process
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
        root.removeHandler(handler)
    if any(text.startswith("exec:") for text in said):
        raise ApiUnconfigured("the credential plugin (exec) of the kubeconfig fails: run it by hand to see why")


def _load_service_account(configuration: Configuration, folder: Path) -> None:
    from kubernetes.config.incluster_config import InClusterConfigLoader

    loader: Any = InClusterConfigLoader
    loader(str(folder / "token"), str(folder / "ca.crt")).load_and_set(configuration)


def _load_files(configuration: Configuration, files: list[str], context: str | None) -> None:
    from kubernetes import config

    load: Any = config.load_kube_config
    load(config_file=os.pathsep.join(files), context=context, client_configuration=configuration, persist_config=False)


def _files(kubeconfig: str | None, context: str | None) -> list[str]:
    """Return the names of the user's files, of which there is one at least."""
    named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [str(Path(file).expanduser()) for file in named.split(os.pathsep) if file]
    if not any(Path(file).is_file() for file in files):
        where = "this is no pod of a cluster, and " if kubeconfig is None and context is None else ""
        raise ApiUnconfigured(f"{where}there is no file {' or '.join(files)}; say which by the option `kubeconfig`")
    return files


def _source(kubeconfig: str | None) -> str:
    return f"the configuration of the cluster ({kubeconfig})" if kubeconfig else "the configuration of the cluster"


def _words(error: Exception) -> str:
    """Say what is wrong with a configuration. Errors of parsers quote what they parse: their words are not repeated."""
    from kubernetes.config import ConfigException

    if isinstance(error, ConfigException):
        return " ".join(str(error).split())[:500]
    if isinstance(error, OSError):
        return f"{error.strerror or 'cannot be read'}{f': {error.filename}' if error.filename else ''}"
    return f"cannot be used ({type(error).__name__})"
