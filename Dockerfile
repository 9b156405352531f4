# splitmask on pip's torch, which brings torchrun. Make the wheel first (`make wheel`), then:
#
#   docker build -t splitmask:cuda .                                    # torch with CUDA, as the default index has it
#   docker build -t splitmask:cpu --build-arg TORCH_INDEX=ADDRESS .     # ADDRESS: PyTorch's index for CPUs, as its installation page names it
#
#   docker run --rm --gpus all --shm-size 8g -v "$PWD":/runs -p 127.0.0.1:9464:9464 splitmask:cuda train --config my.toml
#   docker run … --entrypoint torchrun splitmask:cuda --no-python --nproc-per-node 8 splitmask train --config my.toml
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX=""
COPY dist/splitmask-*.whl /tmp/wheel/
# The program looks for this torch and says what it found; a wheel that does not start fails here and not on the cluster.
RUN set -eu; \
    if [ -n "$TORCH_INDEX" ]; then PIP_INDEX_URL="$TORCH_INDEX" pip install --no-cache-dir "torch==2.11.*"; fi; \
    pip install --no-cache-dir /tmp/wheel/splitmask-*.whl; \
    rm -r /tmp/wheel; \
    splitmask doctor
COPY deploy/image/stop-and-wait /usr/local/bin/stop-and-wait
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin splitmask; \
    install -d -o splitmask -g splitmask /runs

USER 10001:10001
WORKDIR /runs
# In a container nobody reaches its loopback address. The page shows what is trained: publish the port to whom it concerns.
ENV SPLITMASK_ADMIN__BIND=0.0.0.0:9464
EXPOSE 9464
# Unhealthy is a run that hangs; one that waits for its bucket, or is paused, is not.
HEALTHCHECK --interval=30s --timeout=10s --start-period=10m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/-/healthy', timeout=8)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["splitmask"]
CMD ["--help"]
