#!/usr/bin/env bash
# A hash of all that the native modules are built from.
cd "$(dirname "$0")/.." && find CMakeLists.txt cpu cuda ffi include -type f | LC_ALL=C sort | xargs sha256sum | sha256sum
