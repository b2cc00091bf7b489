# The command `mmrec`, as a job and as a service. For CUDA: --build-arg BASE=an image with Python 3.11 or newer and torch for your CUDA.
ARG BASE=python:3.11-slim
FROM ${BASE}
WORKDIR /opt/mmrec
COPY pyproject.toml constraints.txt README.md ./
COPY mmrec mmrec
COPY encoders encoders
COPY fusion fusion
# --system-site-packages takes torch from the base image where it has one.
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[offline,approximate,metrics,service]'
ENV PATH=/opt/venv/bin:$PATH
USER 1000
WORKDIR /data
ENTRYPOINT ["mmrec"]
