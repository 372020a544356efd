# Not built by continuous integration. The command for migrations: docker run --env-file .env IMAGE webhook migrate
FROM python:3.13-slim
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY webhook webhook
COPY sql sql
RUN pip install --no-cache-dir . && useradd --system webhook
WORKDIR /
USER webhook
EXPOSE 8000
CMD ["webhook", "serve"]
