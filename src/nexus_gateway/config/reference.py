"""Writes docs/configuration.md from the settings: `python -m nexus_gateway.config.reference > docs/configuration.md`.

For:      a page that cannot drift from the code; a test keeps the two equal.
Touches:  stdout, when run as a module.
"""

import sys
import textwrap
from collections.abc import Iterable
from typing import Final

from .litellm import LITELLM_VERSION
from .schema import EMPTY_COUNTS, NAMES, PREFIX, SECRETS, Settings, details, variable
from .upstream_options import OPTIONS
from .upstreams import PORTS

_INTRODUCTION: Final = """\
# Configuration

<!-- Made by `python -m nexus_gateway.config.reference`; edit src/nexus_gateway/config/ instead. -->

Every setting is an environment variable that begins with `{prefix}`, or a line of [the file](#the-file). With none set,
the gateway serves the built-in mock upstream to callers with the key `dev-key`.

```bash
nexus-gateway check            # validates, prints what holds (secrets hidden); 2 and every problem when refused
nexus-gateway check --strict   # refuses warnings too
```

- All problems are told at once, each with its place and a remedy. A configuration with a problem is not started with.
- A `{prefix}` name close to a setting's is refused, with the name that was probably meant. Any other unknown one is a
  warning. `{prefix}SERVICE_*`, `{prefix}PORT` and `{prefix}PORT_*`, which Kubernetes injects, are ignored.
- A variable that is set but empty counts as not set. Not so where that would open what it was meant to close: an empty
  value of {empty} is refused.
- Numbers are finite; times are seconds, and fractions are fine. Switches are `true` and `false`; `on`, `off`, `yes`,
  `no`, `1` and `0` will do.
"""

_UPSTREAMS: Final = """\
## Upstreams

```bash
GATEWAY_UPSTREAMS='llama=http://localhost:8001;gpt=https://api.openai.com/v1?api_key_env=OPENAI_API_KEY;mock=mock://local'
```

Entries stand between `;`, and each is split at its first `=`. A name is 1 to 128 letters, digits and `. _ : / @ -`; it
is what callers send as `model`. Kinds: {kinds}.

The URL is the base URL, with or without `/v1`: `/v1` is appended to a path that names no version, such as `/v1` or
`/v1beta/openai`. A user or a password in it is refused. What stands behind `?` are options; they are never sent:

{options}
Write `%3B` for a `;` and `%26` for a `&` inside a value. Headers with credentials, those that belong to one connection
or one body, and `x-request-id` never travel on and are refused in `forward_headers`.

Certificates and keys are tried at start. A proxy carries what has TLS or is gRPC (CONNECT) and passes on what is plain
HTTP; it must be an `http://` one itself. `env` looks at the variable of the kind first (`GRPC_PROXY` too), then at
`ALL_PROXY`, in lower or upper case; a user and a password in it are sent to the proxy.

### LiteLLM

`litellm://` upstreams ask a provider through [LiteLLM](https://docs.litellm.ai/docs/providers), in this process. It is
an extra: `pip install 'nexus-gateway[litellm]'`, or a container built with `--build-arg NEXUS_EXTRAS=litellm`. Without
it, or with another release than {litellm}, the gateway does not start.

```bash
GATEWAY_UPSTREAMS='gpt-4o-mini=litellm://gpt-4o-mini;claude=litellm://anthropic/claude-sonnet-4-5'
GATEWAY_UPSTREAMS='own=litellm://openai/x?api_base=https://models.example/v1&api_key_env=OWN_KEY'
GATEWAY_UPSTREAMS='any=litellm://' GATEWAY_DEFAULT_UPSTREAM=any   # the model that the caller names
```

The provider's key comes from its usual variable, such as `OPENAI_API_KEY` or `ANTHROPIC_API_KEY`, also where `api_base`
leads elsewhere, unless `api_key_env` names another. With `litellm://` alone a caller may name any model of any provider
that the process has credentials for: restrict that by `allowed_models`. `mock_response` answers without a provider.

Only LiteLLM's translation is used. Retries, fallbacks, limits, logs and counts are the gateway's; its price map, its
callbacks and `.env` files are off. What a provider with OpenAI's API answers is relayed as it is. For any other,
members of a request that cannot be put to it are refused with 400, and a stream has one choice.
"""

_FILE: Final = """\
## The file

`GATEWAY_CONFIG_FILE` names a YAML file with the same settings in lower case, without the prefix. Lists and mappings may
be written as such:

```yaml
default_upstream: llama
upstreams:
  mock: mock://local
  llama:
    url: http://localhost:8001
    model: meta-llama/Meta-Llama-3-8B-Instruct
    timeout_seconds: 120
```

The environment wins, and `nexus-gateway check` tells where it hides a value of the file. A key that stands twice, and a
key that is no setting, are refused. Relative paths start at the working directory.
`config/gateway.example.yaml` runs as it is.

## Secrets

These are never shown:
{secrets}.

Each is also read from the file that its name with `_FILE` at the end gives, as in
`GATEWAY_API_KEYS_FILE=/run/secrets/api_keys`; newlines at the end of the file are left off. Giving both is refused.
A key written as `sha256:` and 64 hex digits is the digest of the key that callers send:

```bash
printf %s "$KEY" | sha256sum
```
"""

_KEY_POLICIES: Final = """\
## Key policies

JSON, or a mapping in the file: who is meant, and what holds for them. [Identity](identity.md) tells more.

```json
{
  "one-of-the-keys": {"name": "search", "allowed_models": ["chat", "small-*"], "rate_limit_per_minute": 600},
  "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08": {"expires_at": "2027-01-31T00:00:00Z"},
  "jwt:alice": {"rate_limit_per_minute": "unlimited"},
  "jwt:*": {"tokens_per_minute": 20000, "max_concurrency": 4}
}
```

A name is a key, the digest of one, `jwt:` and the `sub` of a token, or `jwt:*` for every token without rules of its
own. A key must be in `GATEWAY_API_KEYS`.

| member | default | meaning |
|---|---|---|
| `allowed_models` | all | names that the caller may send as `model`; `*` stands for any text |
| `rate_limit_per_minute` | `GATEWAY_RATE_LIMIT_PER_MINUTE` | requests in any 60 seconds, or `unlimited` |
| `tokens_per_minute` | `unlimited` | tokens in any 60 seconds |
| `max_concurrency` | `unlimited` | requests at the same time |
| `clamp` | `false` | lower the output allowance to what is left instead of refusing |
| `name` | none | what you call the caller |
| `expires_at` | never | an instant with its time zone |
| `disabled` | `false` | refuse the credential as if it were unknown |
"""

_POLICIES: Final = """\
## Route policies

JSON, or a mapping in the file: the model name that callers send, and which upstreams answer it.

```json
{{
  "chat": {{
    "strategy": "weighted",
    "targets": [{{"name": "primary", "weight": 90}}, {{"name": "canary", "weight": 10}}]
  }},
  "test": {{"strategy": "canary", "primary": "primary", "canary": "canary", "percent": 5}}
}}
```

| member | of | meaning |
|---|---|---|
| `strategy` | all | `weighted`, `canary`, `balanced` or `failover` |
| `targets` | all but `canary` | upstreams, as `{{"name": …}}`; with a `weight` for `weighted`, perhaps for `balanced` |
| `primary`, `canary`, `percent` | `canary` | who gets the rest, who is on trial, and its share from 0 to 100 |
| `sticky` | `weighted`, `canary` | `key`, `user` or `header:<name>`: what keeps a caller on its side |
| `timeout_seconds`, `first_token_timeout_seconds` | all | bounds of one attempt |
| `max_attempts` | all | attempts in all, from 1 to 100 |
| `fallbacks` | all | upstreams that stand in, instead of those of `GATEWAY_FALLBACKS` |

A target is always an upstream, even one named like the policy. Weights are 0 or more, and one of them is above 0.
"""


def page() -> str:
    """The whole of docs/configuration.md."""
    empty = _listed(name for name in NAMES if name in EMPTY_COUNTS)
    sections = [
        _INTRODUCTION.format(prefix=PREFIX, empty=empty),
        *_settings(),
        _UPSTREAMS.format(
            kinds=_listed(f"{kind}://" for kind in PORTS),
            options=_options(),
            litellm=LITELLM_VERSION,
        ),
        _FILE.format(secrets=_wrapped(variable(name) for name in NAMES if name in SECRETS)),
        _KEY_POLICIES,
        _POLICIES.format(),
    ]
    return "\n".join(sections)


def _settings() -> Iterable[str]:
    groups = dict.fromkeys(str(details(name)["group"]) for name in NAMES)
    for group in groups:
        rows = [_row(name) for name in NAMES if details(name)["group"] == group]
        yield "\n".join([f"## {group}", "", "| variable | default | meaning |", "|---|---|---|", *rows, ""])


def _row(name: str) -> str:
    field = Settings.model_fields[name]
    return f"| `{variable(name)}` | {_default(name)} | {field.description} |"


def _default(name: str) -> str:
    says = details(name)["default_says"]
    default = Settings.model_fields[name].default
    if says is not None:
        return str(says)
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _options() -> str:
    lines = ["| option | of | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {', '.join(option.kinds)} | {option.says} |" for name, option in OPTIONS.items()]
    return "\n".join(lines) + "\n"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _wrapped(words: Iterable[str]) -> str:
    return textwrap.fill(_listed(words), 120)


if __name__ == "__main__":
    sys.stdout.write(page())
