#!/usr/bin/env bash
# Make the images that the project builds on, from Debian packages, on a machine that reaches no image registry.
#
#   deploy/local-base-image.sh python IMAGE        Debian with python3: the Dockerfile's BASE_IMAGE
#   deploy/local-base-image.sh build IMAGE         the same with g++: the Dockerfile's BUILD_IMAGE
#   deploy/local-base-image.sh prometheus IMAGE    Debian with prometheus: the compose file's PROMETHEUS_IMAGE
#
# Needs root, debootstrap and a running Docker engine. SUITE (bookworm) and MIRROR (what this machine's apt uses, else
# debootstrap's own) choose where packages come from. The certificates that this machine trusts go into the image, so that
# pip works there too where a proxy of the house signs connections.
set -euo pipefail

usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

[[ $# == 2 ]] || usage
kind=$1 image=$2
suite=${SUITE:-bookworm}
mirror=${MIRROR:-$(apt-get indextargets --format '$(SITE)' "Codename: $suite" 2>/dev/null | head -n 1)}

case $kind in
  python | build)
    packages=python3,python3-venv,ca-certificates
    if [[ $kind == build ]]; then packages+=,g++; fi
    changes=(--change 'ENV LANG=C.UTF-8' --change 'CMD ["python3"]') ;;
  prometheus)
    packages=prometheus,ca-certificates
    changes=(--change 'ENTRYPOINT ["/usr/bin/prometheus"]' --change 'USER nobody' --change 'WORKDIR /prometheus'
      --change 'CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]') ;;
  *) usage ;;
esac

[[ $EUID == 0 ]] || { echo "debootstrap needs root" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "debootstrap was not found: apt-get install debootstrap" >&2; exit 1; }
docker version >/dev/null || { echo "no Docker engine answers" >&2; exit 1; }

tree=$(mktemp -d)
trap 'rm -rf -- "$tree"' EXIT

# debootstrap itself only resolves plain dependencies; that is all that these packages need.
debootstrap --variant=minbase --include="$packages" "$suite" "$tree" ${mirror:+"$mirror"}

cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/ca-certificates.crt"
rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/log/* "$tree"/usr/share/{doc,man,locale,info}/*
if [[ $kind == prometheus ]]; then
  install -d -o 65534 -g 65534 "$tree/prometheus"  # nobody, as in the image that this one stands in for
fi

tar -C "$tree" --numeric-owner -c . | docker import "${changes[@]}" - "$image"
