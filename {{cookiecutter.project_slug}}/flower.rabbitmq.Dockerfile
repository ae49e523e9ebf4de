# Flower, a web UI that shows and stops workers and tasks: the service, with Flower's dependencies.
# It connects with the service's settings, so it needs the same environment variables, and FLOWER_BASIC_AUTH,
# `name:password`. Without that, Flower would not require a login, so the image does not start.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/flower
COPY requirements.txt requirements-flower.txt requirements-build.txt ./
RUN python -m pip --python /opt/flower install --require-hashes -r requirements.txt -r requirements-flower.txt \
    && python -m pip install --require-hashes -r requirements-build.txt
COPY pyproject.toml contract.json ./
COPY chassis chassis
COPY src src
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && python -m pip --python /opt/flower install --no-deps --no-index wheels/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin flower
COPY --from=build /opt/flower /opt/flower
ENV PATH=/opt/flower/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/flower
USER 10001
VOLUME ["/tmp"]
# https://flower.readthedocs.io/en/latest/auth.html
ENTRYPOINT ["sh", "-c", ": \"${FLOWER_BASIC_AUTH:?must be name:password, or Flower lets everybody in}\" && exec \"$@\"", "flower"]
