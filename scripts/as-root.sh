#!/usr/bin/env bash
# Runs a command as root: directly when we are, through sudo when there is one.
set -euo pipefail
if [[ $EUID -eq 0 ]]; then
  exec "$@"
fi
if ! command -v sudo >/dev/null; then
  echo "this step needs root and there is no sudo: $*" >&2
  exit 1
fi
# Proxies and certificates belong to the user's environment; templates are downloaded with them.
exec sudo --preserve-env=http_proxy,https_proxy,no_proxy,HTTP_PROXY,HTTPS_PROXY,NO_PROXY,SSL_CERT_FILE,PIP_CERT,PIP_INDEX_URL,PIP_EXTRA_INDEX_URL,REQUESTS_CA_BUNDLE,npm_config_registry,NPM_CONFIG_REGISTRY,NPM_CONFIG_USERCONFIG,GOPROXY,GOSUMDB,GONOSUMDB,GOPRIVATE,GONOPROXY,GOINSECURE "$@"
