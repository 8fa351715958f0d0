"""Files that are right and files that are wrong, for the loader and the schema."""

from __future__ import annotations

GOOD: dict[str, str] = {
    "empty": "",
    "short": """
[daemon.ticker]
entry = "ticker:Ticker"
[daemon.web]
command = "uvicorn app:app"
ready = "http://127.0.0.1:8000/healthz"
depends_on = ["ticker"]
restart = "always"
""",
    "everything": """
[supervisor]
project = "name"
shutdown_timeout = "1m"
start_concurrency = 16
log_dir = "logs"
log_total_max = "1GiB"
chaos = false

[defaults]
restart = "on-failure"
stop = { timeout = "20s" }

[daemon.db]
command = ["postgres", "-D", "data"]
ready.log = "ready to accept"
[daemon.migrate]
entry = "tools/migrate.py:run"
oneshot = true

[daemon.web]
entry = "package.module:Class"
python = "python3.12"
settings = { every = 0.5, since = 2024-01-01, list = [1, "a"] }
platform = "native"
description = "the web"
instances = 2
enabled = true
essential = false
oneshot = false
depends_on = { db = "ready", migrate = { until = "completed", on_restart = "ignore" } }
restart_group = "front"
env = { PORT = 8000, DEBUG = true, RATE = 0.5, NAME = "x" }
env_file = [".env"]
inherit_env = ["DATABASE_URL", "AWS_*"]
working_dir = "."
user = "www-data"
group = 33
umask = "022"

[daemon.web.restart]
policy = "unless-stopped"
max_retries = 10
success_exit_codes = [0, 75]
max_in_window = { count = 5, window = "1m" }
[daemon.web.restart.backoff]
initial = "0s"
multiplier = 2.0
max = "60s"
jitter = 0.1
reset_after = "10s"

[daemon.web.ready]
tcp = "127.0.0.1:8000"
timeout = "30s"
interval = "0.2s"

[daemon.web.health]
exec = ["curl", "-f", "http://127.0.0.1:8000/"]
interval = "30s"
timeout = "10s"
retries = 3
successes = 1
start_period = "0s"
action = "none"

[daemon.web.stop]
signal = "TERM"
timeout = "10s"

[daemon.web.reload]
exec = ["kill", "-HUP", "1"]

[daemon.web.resources]
memory = "512MiB"
memory_high = "400MiB"
memory_swap = "0B"
cpu = "150%"
cpu_weight = 100
io_read_bps = "10MiB"
io_write_bps = "10485760"
pids = 100
open_files = 1024
nice = 0
lock_memory = "required"
enforce = "best-effort"

[daemon.web.log]
capture = true
max_size = "10MiB"
keep = 5
compress = true

[daemon.web.container]
image = "registry/app:1"
runtime = "auto"
volumes = ["a:/a"]
ports = ["8000:8000"]
network = "host"
restart_owner = "platform"

[daemon.web.systemd]
scope = "auto"
restart_owner = "duende"

[group.front]
strategy = "one-for-all"
""",
    "command from the defaults": """
[defaults]
command = "sleep 1"
[daemon.a]
[daemon.b]
entry = "x:y"
settings = { a = 1 }
""",
}

BAD: dict[str, tuple[str, list[str], bool]] = {
    # name: (text, the problems without "FILE", whether a schema can see it)
    "typo in a section": (
        "[daemons.a]\ncommand = 'x'\n",
        [":1: daemons: unknown key; did you mean 'daemon'?"],
        True,
    ),
    "typo in a key": (
        "[daemon.web]\ncommand = 'x'\n[daemon.web.restart]\npolcy = 'always'\n",
        [":4: daemon.web.restart.polcy: unknown key; did you mean 'policy'?"],
        True,
    ),
    "a key with dashes": (
        "[daemon.a]\ncommand = 'x'\ndepends-on = []\n",
        [":3: daemon.a.depends-on: unknown key; did you mean 'depends_on'?"],
        True,
    ),
    "a name inside": (
        "[daemon.a]\ncommand = 'x'\nname = 'b'\n",
        [":3: daemon.a.name: unknown key; the name is the table's"],
        True,
    ),
    "a bad name": (
        "[daemon.Web]\ncommand = 'x'\n",
        [
            (
                ":1: daemon.Web: 'Web' can't be a name; use 1 to 63 of a-z, 0-9, '-' and "
                "'_', beginning with a letter or digit"
            )
        ],
        True,
    ),
    "both programs": (
        "[daemon.a]\ncommand = 'x'\nentry = 'a:b'\n",
        [":1: daemon.a: needs exactly one of command and entry, not both"],
        True,
    ),
    "no program": (
        "[daemon.a]\n",
        [":1: daemon.a: needs exactly one of command and entry, and has neither"],
        True,
    ),
    "a daemon that is no table": (
        "[daemon]\ncommand = 'x'\n",
        [
            (
                ":2: daemon.command: expected a table, not 'x'; "
                "write [daemon.NAME] and then command = …"
            )
        ],
        True,
    ),
    "wrong types": (
        """
[daemon.a]
command = 5
instances = "two"
enabled = 1
description = 3
env = { A = [1] }
env_file = ".env"
inherit_env = "A"
umask = 22
settings = 1
restart = 5
stop = "SIGINT"
depends_on = "b"
[daemon.b]
entry = "x:y"
settings = 1
user = true
ready = { exec = "true", notify = "yes" }
restart = { success_exit_codes = [0, "1", true], max_in_window = { count = 1 } }
resources = { lock_memory = "yes", pids = 1.5, memory = true, nice = "low" }
""",
        [
            ":3: daemon.a.command: expected a list of texts, not 5",
            ":4: daemon.a.instances: expected a whole number, not 'two'",
            ":5: daemon.a.enabled: expected true or false, not 1",
            ":6: daemon.a.description: expected text in quotes, not 3",
            ":7: daemon.a.env.A: expected text, a number or a boolean",
            ":8: daemon.a.env_file: expected a list of texts, not '.env'",
            (
                ":9: daemon.a.inherit_env: expected a list of names, true or false, "
                "not 'A'"
            ),
            (
                ":10: daemon.a.umask: expected octal digits in quotes such as '022', "
                "not 22"
            ),
            (
                ":11: daemon.a.settings: is for an entry only, and this daemon has a "
                "command"
            ),
            ":11: daemon.a.settings: expected a table, not 1",
            ":12: daemon.a.restart: expected a table, not 5",
            ":13: daemon.a.stop: expected a table, not 'SIGINT'",
            (
                ":14: daemon.a.depends_on: expected a list of names or a table such as "
                "{ db = 'ready' }, not 'b'"
            ),
            ":17: daemon.b.settings: expected a table, not 1",
            ":18: daemon.b.user: expected a name or a number, not the boolean true",
            (
                ":19: daemon.b.ready: needs exactly one of http, tcp, unix, log, exec and "
                "notify, and has exec and notify"
            ),
            ":19: daemon.b.ready.exec: expected a list of texts, not 'true'",
            (
                ":20: daemon.b.restart.success_exit_codes[1]: expected a whole number, "
                "not '1'"
            ),
            (
                ":20: daemon.b.restart.success_exit_codes[2]: expected a whole number, "
                "not the boolean true"
            ),
            ":20: daemon.b.restart.max_in_window.window: is missing",
            (
                ":21: daemon.b.resources.memory: expected a size such as '512MiB', not a "
                "boolean"
            ),
            ":21: daemon.b.resources.pids: expected a whole number, not 1.5",
            ":21: daemon.b.resources.nice: expected a whole number, not 'low'",
            (
                ":21: daemon.b.resources.lock_memory: expected true, false or "
                "'required', not 'yes'"
            ),
        ],
        True,
    ),
    "zeros": (
        """
[daemon.a]
command = "x"
instances = 0
restart.max_retries = 0
stop.timeout = "0s"
resources.memory = "0B"
resources.open_files = 0
health = { notify = true, interval = "0s", retries = 0 }
""",
        [
            ":4: daemon.a.instances: must be at least 1, not 0",
            (
                ":5: daemon.a.restart.max_retries: must be at least 1, not 0; "
                "write policy = 'never', or leave it out for no limit"
            ),
            (
                ":6: daemon.a.stop.timeout: must be more than 0, not 0; "
                "write signal = 'SIGKILL' to kill at once"
            ),
            (
                ":7: daemon.a.resources.memory: must be more than 0, not 0; "
                "leave the key out for no limit"
            ),
            (
                ":8: daemon.a.resources.open_files: must be more than 0, not 0; "
                "leave the key out for no limit"
            ),
            ":9: daemon.a.health.interval: must be more than 0, not 0",
            ":9: daemon.a.health.retries: must be at least 1, not 0",
        ],
        True,
    ),
    "bad values": (
        """
[daemon.a]
command = "x"
platform = "linux"
restart = "allways"
ready = "htp://x"
stop.signal = "SIGTREM"
stop.timeout = "10 sek"
reload = { signal = "HUP", exec = ["x"] }
resources = { cpu = 1.5, memory = "512mib" }
[daemon.b]
entry = "module"
ready = { log = "(" }
""",
        [
            (
                ":4: daemon.a.platform: must be one of 'native', 'systemd', 'launchd', "
                "'container', 'auto', 'pepita', 'wos', not 'linux'"
            ),
            (
                ":5: daemon.a.restart: 'allways' is not one of 'never', 'always', "
                "'on-failure', 'unless-stopped'; did you mean 'always'?"
            ),
            (
                ":6: daemon.a.ready: 'htp://x' is no readiness check; write "
                "'http://…', 'tcp://host:port', 'unix:path' or 'notify', or a table "
                'such as { log = "regex" }'
            ),
            (
                ":7: daemon.a.stop.signal: 'SIGTREM' is not a signal; "
                "did you mean 'SIGTERM'?"
            ),
            (
                ":8: daemon.a.stop.timeout: unknown unit 'sek' in the duration '10 sek'; "
                "write us, ms, s, m, h, d or w"
            ),
            ":9: daemon.a.reload: must have one of signal and exec, not both",
            (
                ":10: daemon.a.resources.memory: unknown unit 'mib' in the size "
                "'512mib'; did you mean 'MiB'?"
            ),
            (
                ":10: daemon.a.resources.cpu: a bare number (1.5) could be cores or per "
                "cent; write '150%' (100% is one core)"
            ),
            (
                ":12: daemon.b.entry: must be 'package.module:Class' or "
                "'path/file.py:Class', not 'module'"
            ),
            (
                ":13: daemon.b.ready.log: is no regular expression: missing ), "
                "unterminated subpattern at position 0 in '('"
            ),
        ],
        True,
    ),
    "no kind of readiness": (
        "[daemon.a]\ncommand = 'x'\nready = { timeout = '5s' }\n",
        [
            (
                ":3: daemon.a.ready: needs exactly one of http, tcp, unix, log, exec and "
                "notify, and has none"
            )
        ],
        False,
    ),
    "a shell in a command": (
        "[daemon.a]\ncommand = 'a && b'\n",
        [
            (
                ":2: daemon.a.command: there is no shell, so && ('and') means nothing in "
                "'a && b'; write a list of arguments, or sh -c '…'"
            )
        ],
        False,
    ),
    "dependencies": (
        """
[daemon.a]
command = "x"
depends_on = ["b", "webb"]
[daemon.b]
command = "x"
instances = 0
depends_on = { c = "healthy", web = "completed" }
[daemon.c]
command = "x"
depends_on = { a = "redy", web = { untl = "ready" } }
[daemon.web]
command = "x"
depends_on = { b = 1 }
""",
        [
            (
                ":4: daemon.a.depends_on.webb: there is no daemon 'webb'; "
                "did you mean 'web'?"
            ),
            (
                ":4: daemon.a.depends_on.b: cycle: a -> b -> c -> a; "
                "remove one of these dependencies"
            ),
            ":7: daemon.b.instances: must be at least 1, not 0",
            (
                ":11: daemon.c.depends_on.a: 'redy' is not one of 'started', 'ready', "
                "'healthy', 'completed'; did you mean 'ready'?"
            ),
            ":11: daemon.c.depends_on.web.untl: unknown key; did you mean 'until'?",
            (
                ":14: daemon.web.depends_on.b: expected 'ready' or a table such as "
                "{ until = 'ready' }, not 1"
            ),
        ],
        True,
    ),
    "a cycle": (
        (
            "[daemon.a]\ncommand='x'\ndepends_on=['b']\n"
            "[daemon.b]\ncommand='x'\ndepends_on=['a']\n"
        ),
        [
            (
                ":3: daemon.a.depends_on.b: cycle: a -> b -> a; "
                "remove one of these dependencies"
            )
        ],
        False,
    ),
    "what never comes": (
        (
            "[daemon.a]\ncommand='x'\n"
            "[daemon.b]\ncommand='x'\ndepends_on={ a = 'healthy' }\n"
            "[daemon.c]\ncommand='x'\ndepends_on={ a = 'completed' }\n"
        ),
        [
            (
                ":5: daemon.b.depends_on.a: 'healthy' never comes, since 'a' has no "
                "health; add [daemon.a.health], or write 'ready'"
            ),
            (
                ":8: daemon.c.depends_on.a: 'completed' never comes, since 'a' is no "
                "oneshot; add oneshot = true to [daemon.a], or write 'ready'"
            ),
        ],
        False,
    ),
    "instances that clash": (
        "[daemon.web]\ncommand='x'\ninstances=2\n[daemon.web-1]\ncommand='x'\n",
        [
            (
                ":4: daemon.web-1: an instance of 'web' and one of 'web-1' would both be "
                "called 'web-1'; rename one of the two"
            )
        ],
        False,
    ),
    "an instance with too long a name": (
        f"[daemon.{'a' * 62}]\ncommand='x'\ninstances=2\n",
        [
            (
                f":3: daemon.{'a' * 62}.instances: the instance '{'a' * 62}-1' would have "
                "a name of more than 63 characters"
            )
        ],
        False,
    ),
    "an unknown group": (
        "[daemon.a]\ncommand='x'\nrestart_group='fornt'\n[group.front]\n",
        [
            (
                ":3: daemon.a.restart_group: there is no [group.fornt]; "
                "did you mean 'front'?"
            )
        ],
        False,
    ),
    "in the defaults": (
        """
[defaults]
restart = "allways"
entry = "a:b"
command = "x"
name = "y"
stop = { timeout = "0s" }
[daemon.a]
command = "x"
[daemon.b]
command = "x"
stop = { signal = "x" }
""",
        [
            ":2: defaults: needs at most one of command and entry",
            (
                ":3: defaults.restart: 'allways' is not one of 'never', 'always', "
                "'on-failure', 'unless-stopped'; did you mean 'always'?"
            ),
            ":6: defaults.name: unknown key",
            (
                ":7: defaults.stop.timeout: must be more than 0, not 0; "
                "write signal = 'SIGKILL' to kill at once"
            ),
            (":12: daemon.b.stop.signal: 'x' is not a signal; write 'SIGTERM' or so"),
        ],
        True,
    ),
    "the supervisor": (
        """
defaults = 1
[supervisor]
project = "My Project"
log_total_max = "0B"
shutdown_timeout = -1
[group.A]
[group.b]
strategy = "one-for-al"
""",
        [
            ":2: defaults: expected a table, not 1",
            (
                ":4: supervisor.project: can't be 'My Project'; use 1 to 63 of a-z, 0-9, "
                "'-' and '_', beginning with a letter or digit"
            ),
            ":5: supervisor.log_total_max: must be more than 0, not 0",
            (
                ":6: supervisor.shutdown_timeout: a duration can't be -1; "
                "write such as '1.5s'"
            ),
            (
                ":7: group.A: 'A' can't be a name; use 1 to 63 of a-z, 0-9, '-' and '_', "
                "beginning with a letter or digit"
            ),
            (
                ":9: group.b.strategy: 'one-for-al' is not one of 'one-for-one', "
                "'one-for-all', 'rest-for-one'; did you mean 'one-for-all'?"
            ),
        ],
        True,
    ),
    "the rest": (
        (
            """
[daemon.a]
command = "x"
stop.signal = true
user = -1
inherit_env = 5
description = 2024-01-01
[daemon.a.restart.backoff]
multiplier = "2"
jitter = 2
"""
            f"max = 1{'0' * 400}\n"
        ),
        [
            (
                ":4: daemon.a.stop.signal: expected a signal such as 'SIGTERM', not the "
                "boolean true"
            ),
            ":5: daemon.a.user: can't be negative, as -1 is",
            ":6: daemon.a.inherit_env: expected a list of names, true or false, not 5",
            ":7: daemon.a.description: expected text in quotes, not 2024-01-01",
            ":9: daemon.a.restart.backoff.multiplier: expected a number, not '2'",
            ":10: daemon.a.restart.backoff.jitter: must be between 0 and 1, not 2.0",
            (
                f":11: daemon.a.restart.backoff.max: 1{'0' * 400} is more than a hundred "
                "years; leave it out for no limit"
            ),
        ],
        True,
    ),
    "a NUL": (
        '[daemon.a]\ncommand = ["a\\u0000"]\nenv = { A = "\\u0000s3cret" }\n',
        [
            ":2: daemon.a.command[0]: has a NUL character in it",
            (
                ":3: daemon.a.env.A: has a NUL character in the value of A, which no "
                "program can get"
            ),
        ],
        False,
    ),
}
