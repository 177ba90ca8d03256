# The service as an image; docker-compose.yml builds it and shows how it is run.

FROM python:3.13.15-slim-trixie AS base

# ---- what is installed is made here, so that pip and what it leaves behind stay out of the image
FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/claimsvc

# The dependencies come first and alone: a change of our own code does not fetch them again. There is no compiler here,
# so one that has no wheel for this platform is refused by name instead of failing to build.
COPY pyproject.toml ./
RUN python -c 'import tomllib; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*project["dependencies"], *project["optional-dependencies"]["tracing"], sep="\n")' \
        > requirements.txt \
    && pip --python /opt/claimsvc/bin/python install --only-binary :all: --requirement requirements.txt

COPY README.md LICENSE ./
COPY claimsvc claimsvc
COPY stress_test stress_test
COPY migrations migrations
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && pip --python /opt/claimsvc/bin/python install --no-deps --no-index /wheels/*.whl

# ---- what runs
FROM base
LABEL org.opencontainers.image.title="claimsvc" \
      org.opencontainers.image.description="Claims limited-stock coupons, many at once, each exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/claimsvc /opt/claimsvc
# A container's own 127.0.0.1, where claimsvc would listen, is reached by nobody else.
ENV PATH=/opt/claimsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CLAIMSVC_HOST=0.0.0.0

# The base image has its standard library uncompiled, and a process that may write nowhere compiles it at every start.
# Running the program once as root keeps the result for the modules that it imports, and shows that it starts at all.
RUN python -c 'import http.client' && claimsvc serve --help >/dev/null
ENV PYTHONDONTWRITEBYTECODE=1

# By number, because Kubernetes' runAsNonRoot cannot check a name. It owns no file: the program cannot change itself.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM

# Healthy means ready: what waits for this (a load balancer, `docker compose up --wait`) wants claims answered. Docker
# restarts nothing for being unhealthy; an orchestrator that does is to be given /livez instead.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
        service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('CLAIMSVC_PORT', '8080')), timeout=4); \
        service.request('GET', '/readyz'); \
        sys.exit(service.getresponse().status != 200)"]

ENTRYPOINT ["claimsvc"]
CMD ["serve"]
