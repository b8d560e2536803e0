"""The description of this provider, which Airflow reads at every start. It imports nothing else from the provider."""

from __future__ import annotations

from typing import Any

NAME = "Huawei Cloud Astro Zero BPM"


def get_provider_info() -> dict[str, Any]:
    """Return the description of the provider, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-astrobpm",
        "name": NAME,
        "description": "Start process instances of Huawei Cloud Astro Zero BPM, steer them, and gate pipelines on them.",
        "integrations": [
            {
                "integration-name": NAME,
                "external-doc-url": "https://support.huaweicloud.com/intl/en-us/api-astrozero/astrozero_api_0069.html",
                "tags": ["service"],
            }
        ],
        "hooks": [_modules("airflow_provider_astrobpm.hooks.astro_zero")],
        "operators": [_modules("airflow_provider_astrobpm.operators.bpm")],
        "sensors": [_modules("airflow_provider_astrobpm.sensors.bpm")],
        "triggers": [_modules("airflow_provider_astrobpm.triggers.bpm")],
        "task-decorators": [
            {"class-name": "airflow_provider_astrobpm.decorators.bpm.astro_bpm_task", "name": "astro_bpm"}
        ],
        "notifications": ["airflow_provider_astrobpm.notifications.bpm.AstroZeroStartBpmNotifier"],
        "extra-links": ["airflow_provider_astrobpm.links.bpm.AstroZeroBpmInstanceLink"],
        "cli": ["airflow_provider_astrobpm.cli.definition.get_cli_commands"],
        "connection-types": [
            {
                "connection-type": "astro_zero",
                "hook-class-name": "airflow_provider_astrobpm.hooks.astro_zero.AstroZeroHook",
                "hook-name": "Huawei Cloud Astro Zero",
                "ui-field-behaviour": {
                    "hidden-fields": [],
                    "relabeling": {"login": "Client id", "password": "Client secret", "schema": "Scheme"},
                    "placeholders": {
                        "host": "appcube.cn-north-4.huaweicloud.com",
                        "schema": "https",
                        "port": "443",
                    },
                },
                "conn-fields": {
                    "access_token": _field(
                        "Access token",
                        "A ready token, used instead of client id and secret and never renewed.",
                        format="password",
                    ),
                    "verify": _field("Verify TLS", "true, false, or the path of a CA bundle. Default: true."),
                    "client_cert": _field("Client certificate", "Path of a certificate for mutual TLS."),
                    "client_key": _field("Client key", "Path of its key, if it is in a separate file."),
                    "proxy": _field("Proxy", "URL of a proxy for all calls.", format="password"),
                    "connect_timeout": _field("Connect timeout (s)", "Default: 10.", "number"),
                    "read_timeout": _field("Read timeout (s)", "Default: 30.", "number"),
                    "max_attempts": _field(
                        "Attempts", "The maximum number of times that a call is sent. Default: 5.", "integer"
                    ),
                    "max_wait": _field("Longest wait between attempts (s)", "Default: 30.", "number"),
                    "max_response_bytes": _field(
                        "Longest answer (bytes)", "Default: 67108864 (64 MiB).", "integer"
                    ),
                    "csrf": _field(
                        "CSRF token on writes", "Fetch a CSRF token and send it with each write.", "boolean"
                    ),
                    "timezone": _field(
                        "Time zone of timestamps",
                        "Such as Asia/Shanghai. Without it timestamps are passed on as Astro Zero sends them.",
                    ),
                    "start_grace": _field(
                        "Start shows within (s)",
                        "Seconds after which a started instance is certainly visible in the lists. Default: 60.",
                        "number",
                    ),
                    "instance_lookup": _field(
                        "Instance look-up",
                        "How one instance is found: by listing its state (documented), by its id (undocumented), or "
                        "auto, which tries the latter once. Default: auto.",
                        enum=["auto", "list", "by_id", None],
                        values_display={"null": "not set"},
                    ),
                    "instance_url": _field(
                        "Address of an instance",
                        "Template with {host} and {instance_id}, for the url of an instance.",
                    ),
                    "record": _field(
                        "Record to folder",
                        "Path of a folder for transcripts of what is sent and answered, with stand-ins for all names and values. "
                        "For a bug report; default: nothing is recorded.",
                    ),
                    "allow_http": _field(
                        "Allow http", "Send the secret unencrypted to another host.", "boolean"
                    ),
                },
            }
        ],
    }


def _modules(module: str) -> dict[str, Any]:
    return {"integration-name": NAME, "python-modules": [module]}


def _field(label: str, description: str, kind: str = "string", **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}
