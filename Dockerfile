# tangeval on a CPU: docker build -t tangeval . && docker run --rm -v "$PWD:/work" tangeval run quickstart.yaml
# docs/doors.md says what was tried of it.
FROM python:3.11-slim

# Chinese characters in pictures.
RUN apt-get update && apt-get install -y --no-install-recommends fonts-noto-cjk && rm -rf /var/lib/apt/lists/*

# PyPI's torch for Linux brings gigabytes of CUDA that a CPU has no use for.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1
COPY . /source
RUN pip install "torch==2.13.0+cpu" && pip install -c /source/requirements.txt "/source[local,train]" && rm -rf /source

RUN useradd --create-home tangeval
USER tangeval
WORKDIR /work
ENTRYPOINT ["tangeval"]
CMD ["--help"]
