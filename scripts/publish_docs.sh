#!/usr/bin/env bash
# Adds the pages of this checkout to the branch gh-pages under a version, which the pages' menu of
# versions then lists; further names are its aliases: scripts/publish_docs.sh 0.1.0 latest.
set -euo pipefail
cd "$(dirname "$0")/.."
version=$1
shift
git config user.name "documentation"
git config user.email "documentation@users.noreply.github.com"
DOCS_VERSIONS=mike mike deploy --push --update-aliases "$version" "$@"
case " $* " in *" latest "*) mike set-default --push latest ;; esac
