# The base is pinned to the bytes of one multi-architecture index; its tag says which Python they hold.
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS build
# litellm, otel, or both with a comma between them
ARG NEXUS_EXTRAS=""
WORKDIR /opt/src
# without pip of its own: the environment that is shipped installs nothing
RUN python3 -m venv --without-pip /opt/nexus
COPY requirements/ requirements/
RUN python3 -m pip --python /opt/nexus/bin/python3 install --no-cache-dir --require-hashes --only-binary :all: \
        -r requirements/runtime.txt
RUN IFS=', '; for extra in $NEXUS_EXTRAS; do \
        test -f "requirements/$extra.txt" || { echo "NEXUS_EXTRAS: there is no extra '$extra'" >&2; exit 1; }; \
        python3 -m pip --python /opt/nexus/bin/python3 install --no-cache-dir --require-hashes --only-binary :all: \
            -r "requirements/$extra.txt" || exit 1; \
    done
COPY pyproject.toml README.md LICENSE ./
COPY src/ src/
RUN python3 -m pip --python /opt/nexus/bin/python3 install --no-cache-dir --no-deps --no-build-isolation . \
    && python3 -m pip --python /opt/nexus/bin/python3 check

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d
COPY --from=build /opt/nexus /opt/nexus
# it loads; and what it loads of the base, which comes without bytecode, is compiled now instead of at every start
RUN /opt/nexus/bin/nexus-gateway check
# nothing is written but below /tmp, so that the root file system may be read-only
ENV PATH=/opt/nexus/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
# by no library that would ask a proxy for it
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/opt/nexus/bin/python3", "-c", \
    "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/nexus/bin/nexus-gateway", "serve", "--host", "0.0.0.0", "--port", "8000"]
