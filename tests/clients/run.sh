#!/usr/bin/env bash
# Other people's clients against our server: their environment, their packages by hash, then the tests.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=.venv-clients here=tests/clients
if [ ! -e $venv/.ready ] || [ $here/requirements.txt -nt $venv/.ready ]; then
  test -x $venv/bin/python || .venv/bin/python -m venv $venv
  $venv/bin/python -m pip install --quiet --no-deps --require-hashes -r $here/requirements.txt
  touch $venv/.ready
fi
if [ ! -e $here/node_modules/.ready ] || [ $here/package-lock.json -nt $here/node_modules/.ready ]; then
  (cd $here && npm ci --no-audit --no-fund && touch node_modules/.ready)
fi
exec $venv/bin/python -m pytest $here "$@"
