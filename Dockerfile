# One image for everything that the `rapport` command does; see docker-compose.yml and deploy/k8s for what it is told.

FROM python:3.13-slim AS build
RUN python -m venv /opt/rapport
ENV PATH=/opt/rapport/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/run.txt /src/requirements/
RUN pip install -r /src/requirements/run.txt
COPY . /src
RUN pip install --no-deps /src

FROM python:3.13-slim
# A number, so that Kubernetes can tell that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent rapport
COPY --from=build /opt/rapport /opt/rapport
ENV PATH=/opt/rapport/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
ENTRYPOINT ["rapport"]
CMD ["--help"]
