# CPU: docker build -t rlhf .
# GPU: docker build -t rlhf-gpu --build-arg LOCK=constraints-gpu.txt --build-arg EXTRAS=serving,vllm,quantization .
# The wheels of torch bring CUDA themselves; the host needs its driver and the container toolkit. For a CPU image without
# CUDA, give PyTorch's index of CPU wheels: --build-arg PIP_EXTRA_INDEX_URL=<index>. How to run it: launchers/README.md
FROM python:3.11-slim
ARG LOCK=constraints.txt
ARG EXTRAS=serving,export
ARG PIP_EXTRA_INDEX_URL=
ENV DS_BUILD_OPS=0 PYTHONUNBUFFERED=1 HF_HOME=/data/huggingface
# a compiler: kernels of torch and DeepSpeed are built when they are first used
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/rlhf
COPY . .
RUN pip install --no-cache-dir -c .ci/${LOCK} ".[${EXTRAS}]"
RUN useradd --create-home rlhf && install -d -o rlhf /data
USER rlhf
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["rlhf"]
CMD ["--help"]
