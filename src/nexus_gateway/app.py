"""Puts the gateway together: the only file that names concrete adapters.

For:      `create_app`, and a lifespan that opens everything on the running loop and closes it again.
Touches:  everything, once, at start-up.
"""

import asyncio
import importlib
import logging
import math
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from os import environ as process_environ
from typing import Final

from nexus_gateway import __version__
from nexus_gateway.config.runtime import (
    TIMEOUT_SETTINGS,
    AuditSpec,
    MaskingSpec,
    Runtime,
    Timeouts,
    TokenSpec,
    TracingSpec,
    UpstreamSpec,
)
from nexus_gateway.config.settings import ConfigurationProblems, load
from nexus_gateway.core.access import CallerPolicy
from nexus_gateway.core.audit_bodies import Kept, Room
from nexus_gateway.core.breaker import State
from nexus_gateway.core.credentials import KeyRing, key_id_of
from nexus_gateway.core.health import Fleet
from nexus_gateway.core.jwt import Claims, OneKey
from nexus_gateway.core.model import Operation
from nexus_gateway.core.outbox import Outbox
from nexus_gateway.core.pii import DEFAULT_DETECTORS, CustomPattern, Masker, MaskingConfig, Restoring, Scope
from nexus_gateway.core.routing import compile_routes
from nexus_gateway.core.tokens import Estimator
from nexus_gateway.core.tracing import Target, Tracing
from nexus_gateway.core.verified import VerifiedTokens
from nexus_gateway.edge.admin import Desk, add_admin
from nexus_gateway.edge.asgi import DataPlane
from nexus_gateway.edge.docs import add_docs
from nexus_gateway.edge.gateway import Gateway
from nexus_gateway.edge.index import add_index
from nexus_gateway.edge.operations import DEGRADED, OK, add_operations
from nexus_gateway.observe.audit import AuditLog, AuditSink, AuditStdout
from nexus_gateway.observe.audit_file import AuditFile
from nexus_gateway.observe.audit_keys import signer
from nexus_gateway.observe.audit_writer import AuditWriter
from nexus_gateway.observe.base import Observer, Observers, RoutingObserver
from nexus_gateway.observe.console import for_people
from nexus_gateway.observe.failures import Failures
from nexus_gateway.observe.lines import LineWriter
from nexus_gateway.observe.log import RequestLog
from nexus_gateway.observe.logging import configure, release, take_over
from nexus_gateway.observe.metrics import Metrics
from nexus_gateway.observe.recent import Recent
from nexus_gateway.observe.tracing import Recorder
from nexus_gateway.pipeline.admit import Admission
from nexus_gateway.pipeline.authenticate import Authenticator, TokenCheck
from nexus_gateway.pipeline.bounds import Bounds
from nexus_gateway.pipeline.callers import Caller, Callers
from nexus_gateway.pipeline.checks import HealthChecks
from nexus_gateway.pipeline.endpoint import Bound, Endpoint
from nexus_gateway.pipeline.execute import Executor
from nexus_gateway.pipeline.handle import Pipeline
from nexus_gateway.pipeline.route import Routes
from nexus_gateway.pipeline.screen import Screen
from nexus_gateway.pipeline.shadow import Shadow
from nexus_gateway.pipeline.tasks import Tasks
from nexus_gateway.pipeline.traced import TracedPipeline
from nexus_gateway.stores.base import ALONE, HealthSharing, LimitStore
from nexus_gateway.stores.jwks import PublishedKeys
from nexus_gateway.stores.memory import MemoryLimitStore
from nexus_gateway.upstreams.base import Upstream
from nexus_gateway.upstreams.http import HttpUpstream
from nexus_gateway.upstreams.mock import MockUpstream
from nexus_gateway.upstreams.traced import TracedUpstream

log = logging.getLogger(__name__)

STDOUT: Final = 1
MIN_SALT_CHARS: Final = 16
AUDIT_UNAVAILABLE: Final = "audit unavailable"


def _grpc_upstream(spec: UpstreamSpec, runtime: Runtime) -> Upstream:
    """Imports the library here: it brings threads, and messages on stderr for what we tell ourselves."""
    process_environ.setdefault("GRPC_VERBOSITY", "none")
    process_environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # its handlers may crash a child, and we have none
    from nexus_gateway.upstreams.grpc import GrpcUpstream

    return GrpcUpstream(spec, runtime.timeouts, max_answer_bytes=runtime.max_answer_bytes)


def _litellm_upstream(spec: UpstreamSpec, runtime: Runtime) -> Upstream:
    """After `_load_litellm`."""
    from nexus_gateway.upstreams.litellm import LiteLLMUpstream

    return LiteLLMUpstream(spec, runtime.timeouts, max_answer_bytes=runtime.max_answer_bytes)


async def _load_litellm(runtime: Runtime) -> None:
    """Off the loop, and before anybody is served: it takes seconds."""

    def load() -> Mapping[str, str]:
        from nexus_gateway.upstreams.litellm import rehearse

        return rehearse(specs)

    specs = [spec for spec in runtime.upstreams if spec.kind == "litellm"]
    for name, cause in (await asyncio.to_thread(load) if specs else {}).items():
        remedy = "Its key is missing, or a package of the provider's, or LiteLLM does not know the model."
        log.warning("litellm_unready", extra={"upstream": name, "cause": cause, "remedy": remedy})


def _http_upstream(spec: UpstreamSpec, runtime: Runtime, answers: Outbox) -> Upstream:
    return HttpUpstream(spec, runtime.timeouts, max_answer_bytes=runtime.max_answer_bytes, answers=answers)


KINDS: Final[Mapping[str, Callable[[UpstreamSpec, Runtime, Outbox], Upstream]]] = {
    "http": _http_upstream,
    "https": _http_upstream,
    "grpc": lambda spec, runtime, answers: _grpc_upstream(spec, runtime),
    "grpcs": lambda spec, runtime, answers: _grpc_upstream(spec, runtime),
    "litellm": lambda spec, runtime, answers: _litellm_upstream(spec, runtime),
    "mock": lambda spec, runtime, answers: MockUpstream(spec),
}


def create_app(environ: Mapping[str, str] | None = None) -> Gateway:
    """The application for any ASGI server, configured from `environ` (the process's own by default).

    A bad configuration ends the process with status 2 and every problem on stderr.
    """
    try:
        loaded = load(process_environ if environ is None else environ)
    except ConfigurationProblems as problems:
        print(problems, file=sys.stderr)  # noqa: T201  # no log is open yet
        raise SystemExit(2) from None
    app = build(loaded.runtime, owns_process=environ is None)
    if loaded.runtime.ops_listen is not None:
        log.warning("ops_listen_unserved", extra={"remedy": "Use nexus-gateway serve: this server has one port only."})
    return app


def build(
    runtime: Runtime, *, log_fd: int = STDOUT, observers: Sequence[Observer] = (), owns_process: bool = False
) -> Gateway:
    """The application for a configuration that is known to be good. `observers` are told besides our own.

    `owns_process`: the process is there for this application only, so that its whole log has our form, from now on.
    """
    writer = LineWriter(log_fd, for_people if runtime.log_format == "console" else None)
    if owns_process:
        take_over(writer, runtime.log_level)
    metrics = Metrics(lambda: writer.dropped)
    random_salt = secrets.token_bytes(32)

    @asynccontextmanager
    async def lifespan(app: Gateway) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            writer.start()
            stack.callback(writer.close)
            if not owns_process:
                stack.callback(release, configure(writer, runtime.log_level))
            told: list[Observer] = [metrics.traffic, *observers]
            metrics.lag.start()
            stack.callback(metrics.lag.stop)
            if runtime.audit is not None:
                metrics.audit = audit = open_audit(runtime.audit, writer)
                stack.callback(audit.close)
                told.append(audit)
            if runtime.audit is None or runtime.audit.file is not None:  # else the audit line stands in its place
                log = RequestLog(writer)
                stack.callback(log.flush)
                told.append(log)
            failures = Failures()
            if runtime.admin_key_digest is not None:
                told.append(failures)
            tracing = await open_tracing(runtime.tracing, metrics, stack) if runtime.tracing is not None else None
            tasks = Tasks()
            stack.push_async_callback(tasks.aclose)
            store = await open_store(runtime, metrics, tasks, stack)
            app.outbox = Outbox(asyncio.get_running_loop().call_soon)
            pipeline = await open_pipeline(runtime, store, metrics, tasks, stack, random_salt, tracing, app.outbox)
            if runtime.admin_key_digest is not None:
                recent = Recent(metrics.totals, metrics.traffic.callers, time.monotonic)
                tasks.spawn(recent.watch(), name="recent")
                callers = Callers(known_callers(runtime), store, time.monotonic)
                app.desk = Desk(pipeline.endpoints, recent, failures, callers, time.time())
            keep = open_keeping(runtime.audit, random_salt) if runtime.audit is not None else None
            app.data_plane = DataPlane(
                pipeline,
                Observers(*told),
                tasks,
                max_body_bytes=runtime.max_body_bytes,
                keep=keep,
                refused=metrics.connection_refused,
            )
            yield
            app.data_plane = app.desk = app.outbox = None

    def readiness() -> str:
        audit = metrics.audit
        if app.data_plane is None:
            return "starting"
        if audit is not None and audit.failing:
            return AUDIT_UNAVAILABLE if audit.refuses else DEGRADED
        return OK

    app = Gateway(
        title="Nexus Gateway",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        ops_apart=runtime.ops_listen is not None,
    )
    add_operations(app, readiness, metrics.registry, runtime.metrics_key_digest)
    if runtime.admin_key_digest is not None:
        add_admin(app, lambda: app.desk, runtime.admin_key_digest)
    add_docs(app)
    add_index(app, has_admin=runtime.admin_key_digest is not None, ops_apart=runtime.ops_listen is not None)
    return app


def open_audit(spec: AuditSpec, lines: LineWriter) -> AuditLog:
    """Its checkpoints are written to `lines` too, so that whoever ships those keeps an anchor."""
    sink: AuditSink = AuditStdout(lines)
    if spec.file is not None:
        sink = writer = AuditWriter(
            AuditFile(spec.file, spec.max_bytes),
            checkpoint_records=spec.checkpoint_records,
            sign=signer(spec.signing_seed) if spec.signing_seed is not None else None,
            announce=lambda checkpoint: lines.put(1, lambda: checkpoint),
        )
        writer.start()
    return AuditLog(sink, blocks=spec.blocks)


def open_keeping(spec: AuditSpec, random_salt: bytes) -> Callable[[Operation], Kept] | None:
    """What prompts and answers are kept by, where records are to hold them."""
    if spec.bodies is None:
        return None
    mask, room = Masker(masking_config(spec.bodies, random_salt)).mask_excerpt, Room()
    return lambda operation: Kept(room, mask, says_vectors=operation is Operation.EMBEDDINGS)


async def open_tracing(spec: TracingSpec, metrics: Metrics, stack: AsyncExitStack) -> Tracing:
    """Imports OpenTelemetry's SDK here, off the loop: it takes a while."""
    found = await asyncio.to_thread(importlib.import_module, "nexus_gateway.observe.span_export")
    export = found.SpanExport(spec)
    stack.push_async_callback(export.aclose)
    metrics.spans = lambda: (export.sent, export.lost)
    return Recorder(spec.sampling, export.put, time.monotonic, random.getrandbits)


def traced(upstream: Upstream, spec: UpstreamSpec, *, is_mirror: bool = False) -> Upstream:
    """`upstream`, with a span for each attempt."""
    has_server = spec.mock is None
    return TracedUpstream(
        upstream, Target(spec.name, spec.host if has_server else "", spec.port if has_server else 0, is_mirror)
    )


async def open_pipeline(
    runtime: Runtime,
    store: LimitStore,
    metrics: Metrics,
    tasks: Tasks,
    stack: AsyncExitStack,
    random_salt: bytes,
    tracing: Tracing | None,
    answers: Outbox,
) -> Pipeline:
    """Opens the upstreams on the running loop; `stack` closes them."""
    timeouts = runtime.timeouts
    request_timeout = Bound(timeouts.request_s, TIMEOUT_SETTINGS["request_s"])
    names = [spec.name for spec in runtime.upstreams]

    def breaker_changed(upstream: str, before: State, after: State) -> None:
        metrics.breaker_changed(upstream, before.value, after.value)
        sharing.breaker_changed(upstream, before, after)

    fleet = Fleet(names, runtime.breaker.max_failures, runtime.breaker.reset_s, random.random, breaker_changed)
    sharing = open_sharing(runtime, fleet, tasks, stack)
    await sharing.started()
    metrics.upstreams = tuple(fleet)
    endpoints = {}
    mirrored = {}  # of each upstream, what the shadow would ask
    await _load_litellm(runtime)
    for spec in runtime.upstreams:
        upstream = mirrored[spec.name] = KINDS[spec.kind](spec, runtime, answers)
        stack.push_async_callback(upstream.aclose)
        if tracing is not None:
            mirrored[spec.name] = traced(upstream, spec, is_mirror=True)
            upstream = traced(upstream, spec)
        endpoints[spec.name] = Endpoint(upstream, fleet[spec.name], request_timeout, sharing)
        if spec.startup_s is not None:
            fleet[spec.name].expect_start(time.monotonic() + spec.startup_s)
    table = compile_routes(names, runtime.policies, runtime.fallbacks, runtime.default_upstream)
    bounds = _bounds(timeouts, runtime.max_answer_bytes, metrics)
    checks = HealthChecks(runtime.health_check_s, timeouts.connect_s, bounds.clock, random.random)
    for spec in runtime.upstreams:
        if spec.is_checked:
            tasks.spawn(checks.watch(endpoints[spec.name]), name=f"check {spec.name}")
    shadow = None
    if runtime.shadow is not None:
        target = runtime.shadow.target
        own = Fleet([target], runtime.breaker.max_failures, runtime.breaker.reset_s, random.random)
        shadowed = Endpoint(mirrored[target], own[target], request_timeout)
        shadow = Shadow(shadowed, runtime.shadow.percent, runtime.shadow.max_bytes, tasks, bounds, metrics)
    screen = open_screen(runtime.masking, random_salt, bounds.clock) if runtime.masking is not None else None
    estimator = Estimator(runtime.bytes_per_token, runtime.default_output_tokens)
    steps = (
        open_authenticator(runtime, tasks),
        Admission(store, estimator, time.monotonic),
        Routes(table),
        Executor(endpoints, fleet, table, bounds, random.random, shadow=shadow, tell_routing=runtime.routing_headers),
        screen,
        metrics.audit,
    )
    return Pipeline(*steps) if tracing is None else TracedPipeline(tracing, *steps)


def known_callers(runtime: Runtime) -> list[Caller]:
    """All that the configuration names, keys first."""
    usual = CallerPolicy(runtime.requests_per_minute)
    known = [Caller(runtime.key_policies.get(digest, usual), key_id_of(digest)) for digest in runtime.api_key_digests]
    if runtime.tokens is not None:
        issuer = runtime.tokens.rules.issuer
        for subject, policy in {**runtime.token_policies, "*": runtime.token_policies.get("*", usual)}.items():
            one = issuer is not None and subject != "*"
            known.append(Caller(policy, Claims(issuer or "", subject, 0).key_id if one else None, subject))
    return known


def open_authenticator(runtime: Runtime, tasks: Tasks) -> Authenticator:
    usual = CallerPolicy(runtime.requests_per_minute)
    keys = KeyRing({digest: runtime.key_policies.get(digest, usual) for digest in runtime.api_key_digests})
    tokens = None if runtime.tokens is None else _open_token_check(runtime, runtime.tokens, usual, tasks)
    return Authenticator(keys, tokens, runtime.trusted_proxies, time.monotonic, time.time)


def _open_token_check(runtime: Runtime, spec: TokenSpec, usual: CallerPolicy, tasks: Tasks) -> TokenCheck:
    verified = VerifiedTokens()
    policies = runtime.token_policies
    usual = policies.get("*", usual)
    if spec.key is not None:
        return TokenCheck(OneKey(spec.key), spec.rules, policies, usual, verified)
    published = PublishedKeys(spec.jwks_url or "", spec.algorithms, verified.clear)
    tasks.spawn(published.watch(), name="jwks")
    return TokenCheck(published, spec.rules, policies, usual, verified, published.look_again)


def masking_config(spec: MaskingSpec, random_salt: bytes) -> MaskingConfig:
    """`random_salt` is taken where the operator gave none, the same for all that is masked in this process."""
    return MaskingConfig(
        salt=random_salt if spec.salt is None else spec.salt.encode(),
        detectors=DEFAULT_DETECTORS if spec.detectors is None else frozenset(spec.detectors),
        custom=tuple(CustomPattern(type_, pattern) for type_, pattern in spec.custom),
        scope=Scope.GLOBAL if spec.is_global else Scope.PRINCIPAL,
    )


def open_screen(spec: MaskingSpec, random_salt: bytes, clock: Callable[[], float]) -> Screen:
    """Compiles the detectors: about half a second."""
    if spec.salt is None:
        log.warning(
            "pii_salt_random", extra={"remedy": "Set GATEWAY_PII_HASH_SALT: placeholders then outlive a restart."}
        )
    elif len(spec.salt) < MIN_SALT_CHARS:
        log.warning("pii_salt_short", extra={"remedy": f"Use {MIN_SALT_CHARS} characters or more."})
    return Screen(Masker(masking_config(spec, random_salt)), Restoring(spec.restore), spec.timeout_s, clock)


async def open_store(runtime: Runtime, metrics: Metrics, tasks: Tasks, stack: AsyncExitStack) -> LimitStore:
    """Limits in this process, or shared through Redis. A Redis that is away does not keep the gateway from starting."""
    if runtime.redis_url is None:
        return MemoryLimitStore()
    from nexus_gateway.stores.redis import FailureMode, RedisLimitStore

    store = RedisLimitStore(
        runtime.redis_url,
        mode=FailureMode(runtime.redis_failure_mode),
        on_change=lambda state, reason: metrics.store_changed(state.value, reason),
    )
    metrics.processes = lambda: store.processes
    tasks.spawn(store.run(), name="redis")
    stack.push_async_callback(store.aclose)
    await store.started()
    return store


def open_sharing(runtime: Runtime, fleet: Fleet, tasks: Tasks, stack: AsyncExitStack) -> HealthSharing:
    """Whether other processes hear of breakers and isolation. A Redis that is away does not keep us from starting."""
    if runtime.redis_url is None:
        return ALONE
    from nexus_gateway.stores.redis_health import RedisHealth

    sharing = RedisHealth(runtime.redis_url, fleet, longest_s=runtime.breaker.reset_s)
    tasks.spawn(sharing.run(), name="redis health")
    stack.push_async_callback(sharing.aclose)
    return sharing


def _bounds(timeouts: Timeouts, max_answer_bytes: int, events: RoutingObserver) -> Bounds:
    deadline_s, maximum_s = timeouts.deadline_s, timeouts.stream_max_s
    return Bounds(
        clock=time.monotonic,
        deadline=Bound(deadline_s, TIMEOUT_SETTINGS["deadline_s"]) if deadline_s is not None else None,
        stream_idle=Bound(timeouts.stream_idle_s, TIMEOUT_SETTINGS["stream_idle_s"]),
        stream_maximum=Bound(maximum_s if maximum_s is not None else math.inf, TIMEOUT_SETTINGS["stream_max_s"]),
        max_answer_bytes=max_answer_bytes,
        events=events,
    )
