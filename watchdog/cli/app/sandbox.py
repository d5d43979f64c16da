"""``sandbox``: the fake ZEGO."""

import os
from pathlib import Path
from typing import Annotated

import typer

_ServerSecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the ServerSecret; default $ZEGO_SANDBOX_SERVER_SECRET, then ZEGO's documented example.",
    ),
]
_CallbackSecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A file with the callback secret; default $ZEGO_SANDBOX_CALLBACK_SECRET, then ZEGO's example.",
    ),
]
_ScriptFile = Annotated[Path | None, typer.Option(metavar="FILE", help="A YAML script of joins, leaves and faults.")]
_Seed = Annotated[int | None, typer.Option(help="Makes TaskIds and random faults repeatable; default random.")]
_CrashTimeout = Annotated[
    float, typer.Option(min=0, help="How long a crashed client still counts as present, seconds.")
]
_CallbackUrl = Annotated[str | None, typer.Option(metavar="URL", help="Send callbacks to this URL; default: none.")]


def sandbox(  # noqa: PLR0913  # a parameter is an option
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = 8766,
    app_id: Annotated[int, typer.Option(min=1, max=2**32 - 1, help="The AppId it accepts.")] = 12345,
    server_secret_file: _ServerSecretFile = None,
    script: _ScriptFile = None,
    seed: _Seed = None,
    max_idle: Annotated[
        int, typer.Option(min=30, max=1800, help="MaxIdleTime of ASR tasks without one, seconds.")
    ] = 120,
    concurrency: Annotated[int, typer.Option(min=0, help="Maximum number of running ASR tasks; 0: no limit.")] = 10,
    start_rate: Annotated[int, typer.Option(min=0, help="Start requests per second; 0 is unlimited.")] = 10,
    stop_rate: Annotated[int, typer.Option(min=0, help="Stop requests for ASR tasks per second.")] = 10,
    user_num_rate: Annotated[int, typer.Option(min=0, help="DescribeUserNum requests per second.")] = 10,
    user_list_rate: Annotated[int, typer.Option(min=0, help="DescribeUserList requests per second.")] = 200,
    clock_offset: Annotated[float, typer.Option(help="How far its clock is ahead of this machine's, seconds.")] = 0.0,
    crash_timeout: _CrashTimeout = 100.0,
    callback_url: _CallbackUrl = None,
    callback_secret_file: _CallbackSecretFile = None,
) -> None:
    """Run a fake ZEGO server to test an integration.

    \b
    Examples:
      zego-watchdog sandbox
      zego-watchdog sandbox --port 0 --seed 1 --script rooms.yaml
      zego-watchdog sandbox --app-id 1234567890 --server-secret-file secret --stop-rate 2

    It checks signatures and rate limits, keeps rooms, ends idle tasks, and injects faults on request. It
    prints the configuration to paste.
    """
    from watchdog.sandbox import Limits, Sandbox
    from watchdog.sandbox.command import how_to_use, read_secret, serve

    secret = read_secret("ServerSecret", server_secret_file, os.environ)
    sandbox = Sandbox(
        {app_id: secret},
        host=host,
        port=port,
        seed=seed,
        limits=Limits(start=start_rate, stop=stop_rate, user_num=user_num_rate, user_list=user_list_rate),
        concurrent_tasks=concurrency,
        max_idle_seconds=max_idle,
        clock_offset_seconds=clock_offset,
        crash_timeout_seconds=crash_timeout,
        callback_url=callback_url,
        callback_secrets={app_id: read_secret("callback secret", callback_secret_file, os.environ)},
    )
    serve(sandbox, script, typer.echo, lambda url: how_to_use(url, app_id, secret))
