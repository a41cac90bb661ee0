# The base is pinned by tag: whoever needs the same bytes every time adds the digest that their registry shows.
FROM python:3.11.14-slim-bookworm AS build
ARG NEXUS_EXTRAS=""
RUN test -z "$NEXUS_EXTRAS" || { echo "NEXUS_EXTRAS=$NEXUS_EXTRAS: there are no extras yet" >&2; exit 1; }
RUN python -m venv /opt/nexus
WORKDIR /src
COPY requirements/runtime.txt requirements/
RUN /opt/nexus/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/nexus/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/nexus /opt/nexus
ENV PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/opt/nexus/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/nexus/bin/nexus-gateway", "serve", "--host", "0.0.0.0", "--port", "8000"]
