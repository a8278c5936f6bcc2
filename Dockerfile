# Hydromel on CPUs; docs/commands.md has the commands. The folder /work is the user's.
ARG PYTHON=3.11-slim-bookworm
FROM python:${PYTHON} AS build
ARG TORCH_INDEX=
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY reporting reporting
COPY runner runner
COPY tasks tasks
RUN /venv/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:${PYTHON}
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH HYDROMEL_CACHE=/tmp/hydromel MPLCONFIGDIR=/tmp/matplotlib XDG_STATE_HOME=/tmp/state
RUN useradd --uid 1000 --create-home hydromel && install --directory --owner=hydromel --group=hydromel /work
USER 1000
WORKDIR /work
ENTRYPOINT ["hydromel"]
CMD ["--help"]
