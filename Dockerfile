# The image of the service; docker-compose.yml builds it and shows how to run it.

FROM python:3.13.15-slim-trixie AS base

# ---- build stage, so that pip and its files stay out of the image
FROM base AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
RUN python -m venv --without-pip /opt/claimsvc

# The dependencies are installed first, so that a change of the code does not download them again: what the lock files
# name, with these hashes and nothing else. There is no compiler, so a dependency without a wheel for this platform is an
# error that names it.
COPY requirements/build.txt requirements/run.txt requirements/
RUN pip install --require-hashes --only-binary :all: --requirement requirements/build.txt \
    && pip --python /opt/claimsvc/bin/python install --require-hashes --only-binary :all: \
        --requirement requirements/run.txt

COPY pyproject.toml README.md LICENSE ./
COPY claimsvc claimsvc
COPY stress_test stress_test
COPY migrations migrations
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && pip --python /opt/claimsvc/bin/python install --no-deps --no-index /wheels/*.whl

# ---- runtime stage
FROM base
LABEL org.opencontainers.image.title="claimsvc" \
      org.opencontainers.image.description="Claims limited-stock coupons, many at once, each exactly once" \
      org.opencontainers.image.licenses="Apache-2.0"

COPY --from=build /opt/claimsvc /opt/claimsvc
# The default address, 127.0.0.1, is not reachable from outside the container.
ENV PATH=/opt/claimsvc/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    CLAIMSVC_HOST=0.0.0.0

# The base image's standard library is not compiled, and a process without write access compiles it at every start.
# Running the program once as root stores the bytecode of the modules it imports, and shows that it starts.
RUN python -c 'import http.client' && claimsvc serve --help >/dev/null
ENV PYTHONDONTWRITEBYTECODE=1

# A number, because Kubernetes' runAsNonRoot cannot check a name. The user owns no files, so the program cannot change
# itself.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM

# Healthy means ready, because load balancers and `docker compose up --wait` use this check. Docker does not restart
# unhealthy containers; an orchestrator that does should use /livez.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
        service = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('CLAIMSVC_PORT', '8080')), timeout=4); \
        service.request('GET', '/readyz'); \
        sys.exit(service.getresponse().status != 200)"]

ENTRYPOINT ["claimsvc"]
CMD ["serve"]
