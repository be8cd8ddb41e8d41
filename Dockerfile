# Winnow with its pinned environment. In a checkout:
#
#   docker build --tag winnow .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" --env HOME=/tmp --volume "$PWD":/work --workdir /work winnow demo --cores 4
#
# A build sees no GPU: the image has torch with CUDA's libraries, or with `--build-arg TORCH=cpu` the wheels for CPUs.
# So the checkout's code and configuration are run, and results/ lies in it. Without --volume and --workdir, those of
# the image. On Kubernetes (profiles/clouds) pods are of this image, into which Snakemake brings the checkout's.
FROM python:3.12-slim

WORKDIR /winnow
# The environment by itself: it is made again only if the pins change.
COPY envs envs
ARG TORCH=cuda EXTRAS="photos cluster cloud"
RUN mkdir scripts && TORCH="$TORCH" EXTRAS="$EXTRAS" sh envs/install.sh
COPY . .
RUN .venv/bin/python -m compileall -q scripts

ENV PATH=/winnow/.venv/bin:$PATH
ENTRYPOINT ["snakemake"]
CMD ["--help"]
